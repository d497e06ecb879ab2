"""Contexts of users who come again before they act again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock

from torch import Tensor

from components.serving.dcat.context import Context


def fingerprint(*columns: Tensor) -> bytes:
    """What a history consists of, in 16 bytes (BLAKE2b of its tensors' bytes, shapes and types)."""
    digest = hashlib.blake2b(digest_size=16)
    for column in columns:
        digest.update(f"{column.dtype}{tuple(column.shape)}".encode())
        digest.update(column.detach().cpu().numpy().tobytes())
    return digest.digest()


class ContextCache:
    """The newest context of each user, the least recently used forgotten first. For many threads.

    A context is served only for the fingerprint it was made of: a new action changes the history, and what stood
    for the older one is replaced. A cache belongs to the weights of one decoder; another model takes a new one.

    Args:
        limit_bytes: of keys and values held at any time.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.nbytes = self.hits = self.misses = 0
        self._held: OrderedDict[Hashable, tuple[bytes, Context]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        """Users held."""
        return len(self._held)

    def get(self, user: Hashable, of: bytes) -> Context | None:
        """The user's context if it was made of the history with this fingerprint."""
        with self._lock:
            held = self._held.get(user)
            if held is None or held[0] != of:
                self.misses += 1
                return None
            self.hits += 1
            self._held.move_to_end(user)
            return held[1]

    def put(self, user: Hashable, of: bytes, context: Context) -> None:
        """Hold one user's context instead of what was held for the user."""
        with self._lock:
            self._forget(user)
            if context.nbytes > self.limit_bytes:
                return
            self._held[user] = (of, context)
            self.nbytes += context.nbytes
            while self.nbytes > self.limit_bytes:
                self._forget(next(iter(self._held)))

    def _forget(self, user: Hashable) -> None:
        held = self._held.pop(user, None)
        if held is not None:
            self.nbytes -= held[1].nbytes

    def contexts(
        self, users: Sequence[Hashable], of: Sequence[bytes], encode: Callable[[list[int]], Context]
    ) -> Context:
        """Contexts of several users, in their order; only what is not held is encoded.

        Args:
            users, of: keys and fingerprints of the histories.
            encode: given the indices of the missing users, runs them (`encode_context`, without gradients).
        """
        found = [self.get(user, history) for user, history in zip(users, of, strict=True)]
        missing = [n for n, context in enumerate(found) if context is None]
        if missing:
            encoded = encode(missing)
            for n, index in enumerate(missing):
                found[index] = encoded.user(n)
                self.put(users[index], of[index], found[index])  # type: ignore[arg-type]
        return Context.join([context for context in found if context is not None])
