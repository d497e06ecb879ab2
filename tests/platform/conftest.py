"""Fixtures that several rooms of the platform share."""

from tests.platform.serving.world import world

__all__ = ["world"]
