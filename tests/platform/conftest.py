"""Fixtures that several rooms of the platform share."""

from tests.platform.evaluation.lab import lab
from tests.platform.evaluation.shelved import vector_lab
from tests.platform.serving.world import index, world

__all__ = ["index", "lab", "vector_lab", "world"]
