"""Nearest items by vector."""

from components.retrieval.index import VectorIndex, choose

__all__ = ["VectorIndex", "choose"]
