"""DCAT, the deduplicated cross-attention transformer (PinFM, RecSys 2025, Eqs. 3-4).

Candidates of a user share the user's history. A causal decoder makes each of its tokens blind to the candidates, so
the history runs once per unique user (`encode_context`) and each candidate alone against its keys and values
(`cross`). `full_run` is the slow twin: every candidate behind its own copy of the history.
"""

from components.serving.dcat.cache import ContextCache, fingerprint
from components.serving.dcat.context import SLOTS, Context, cross, encode_context
from components.serving.dcat.full import full_run
from components.serving.dcat.groups import Unique, offsets, unique

__all__ = [
    "SLOTS",
    "Context",
    "ContextCache",
    "Unique",
    "cross",
    "encode_context",
    "fingerprint",
    "full_run",
    "offsets",
    "unique",
]
