"""Fixtures that several rooms of the platform share."""

from tests.platform.evaluation.lab import lab
from tests.platform.serving.world import world

__all__ = ["lab", "world"]
