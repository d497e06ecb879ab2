"""Synthetic logs with planted structure, bucket by bucket: what is known to be there can be looked for."""

from components.generator.catalogue import Catalogue
from components.generator.events import simulate
from components.generator.people import People
from components.generator.world import World

__all__ = ["Catalogue", "People", "World", "simulate"]
