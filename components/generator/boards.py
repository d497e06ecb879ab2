"""A graph with a planted truth: items have a hidden topic, boards collect from one topic, features say little of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class PlantedBoards:
    """
    Attributes:
        topic: int32 [N] of each item; row 0 is the unknown item, −1.
        vectors: fp16 [N, 32] content: a little of the topic, much noise.
        items, boards: int32 [E] edges.
        query, positive: int32 [P] pairs of different items of one topic.
    """

    topic: Ints
    vectors: NDArray[np.float16]
    items: Ints
    boards: Ints
    query: Ints
    positive: Ints


def planted_boards(
    rng: np.random.Generator,
    *,
    topics: int = 40,
    per_topic: int = 25,
    boards: int = 1200,
    per_board: int = 10,
    pairs: int = 20_000,
    strays: float = 0.4,
    signal: float = 0.35,
    isolated: int = 0,
) -> PlantedBoards:
    """Draw one.

    Args:
        strays: share of each board's items that come from anywhere.
        signal: length of a topic's direction in an item's content vector, against noise of length about 1.
        isolated: so many items of the last rows are on no board.
    """
    items = topics * per_topic
    topic = np.concatenate([[-1], rng.permutation(np.repeat(np.arange(topics), per_topic))]).astype(np.int32)
    centre = np.concatenate([np.zeros((1, 32)), _unit(rng.normal(size=(topics, 32)))])
    vectors = _unit(signal * centre[topic + 1] + rng.normal(size=(items + 1, 32)) / np.sqrt(32))
    vectors[0] = 0
    members = [np.flatnonzero(topic == t) for t in range(topics)]
    about = rng.integers(topics, size=boards)
    own = np.stack([rng.choice(members[t], per_board) for t in about])
    stray = rng.random(own.shape) < strays
    drawn = np.where(stray, rng.integers(1, items + 1, size=own.shape), own).astype(np.int32)
    edges = np.unique(np.stack([drawn.ravel(), np.repeat(np.arange(boards), per_board)]), axis=1).astype(np.int32)
    edges = edges[:, edges[0] <= items - isolated]
    query = rng.integers(1, items + 1, size=pairs).astype(np.int32)
    positive = np.array([rng.choice(members[topic[q]]) for q in query], np.int32)
    kept = query != positive
    return PlantedBoards(topic, vectors.astype(np.float16), edges[0], edges[1], query[kept], positive[kept])


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
