"""Short and quantised vectors of one artifact of a search against its full ones.

Hit-rate and nearness beyond popularity of the short vectors (32 numbers, cosine) by PCA with and without centring, and
as they were exported; and how many of the nearest 50 by the full vectors are found by fp16, int8 and the short ones.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pinsage.rivals import Vectors, embedded, said_of
from benchmarks.pinsage.worlds import PAIRS, World
from components.evaluation.bootstrap import Bootstrap
from components.evaluation.related import by_vectors, spread, times_chosen
from components.retrieval.index import VectorIndex
from pinloom.evaluation.related import matched_by_popularity
from pinloom.steps.embed import quantized

QUERIES, K, WIDTH = 500, 50, 32


def unit(vectors: Vectors) -> Vectors:
    """Rows of length 1; row 0 is no item."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    result = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    result[0] = 0
    return result


def uncentred(full: Vectors) -> Vectors:
    """The directions that keep most of the dot products, the mean included."""
    directions = np.linalg.svd(full[1:].T @ full[1:])[0]
    return unit(full @ directions[:, :WIDTH])


def forms(full: Vectors, short: Vectors) -> dict[str, Vectors]:
    whole, scale = quantized(full)
    centred = full - full[1:].mean(0)
    return {
        "full": full,
        "full, fp16": full.astype(np.float16).astype(np.float32),
        "full, int8": whole.astype(np.float32) * scale[:, None],
        "full, cosine": unit(full),
        "full, centred, cosine": unit(centred),
        "short, PCA without centring": uncentred(full),
        "short, as exported": short,
        "short, as exported, fp16": short.astype(np.float16).astype(np.float32),
    }


def nearest(vectors: Vectors, rows: np.ndarray) -> np.ndarray:
    """Rows of the K nearest of some items, by an exact search."""
    found, _ = VectorIndex.build(iter([vectors]), len(vectors), "Flat").search(vectors[rows], K)
    return found


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, exact, strict=True)]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("found", type=Path, help="what the search wrote")
    parser.add_argument("keep", type=Path, help="folder of its artifacts")
    parser.add_argument("name", help="of a configuration")
    parser.add_argument("--most", type=int, default=5000, help="validation pairs, a fixed sample")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    world = World(**said_of(args.found)[args.name].get("world", {}))
    every = forms(*embedded(args.keep / args.name, world))
    rows = np.random.default_rng(0).choice(np.arange(1, len(every["full"])), QUERIES, replace=False)
    exact, centred = nearest(every["full"], rows), nearest(every["full, centred, cosine"], rows)
    for name, vectors in every.items():
        said: dict[str, Any] = {"recall@50 of full": recall(nearest(vectors, rows), exact)}
        said |= {"recall@50 of centred": recall(nearest(vectors, rows), centred)}
        said |= {"similarity": spread(vectors).mean, "kurtosis": spread(vectors).kurtosis}
        for kind, sources in PAIRS.items():
            if len(sources) == 1:
                pairs, chosen = world.asked(*sources, "validation", args.most), world.counted(*sources)
                scorer = by_vectors(vectors)
                measures = pairs.measures(pairs.places(scorer), (100,))
                measures |= matched_by_popularity(pairs, scorer, times_chosen(chosen, len(vectors)))[0]
                estimates = Bootstrap(pairs.users, 500).intervals(list(measures.values()))
                named = dict(zip(measures, estimates, strict=True))
                said |= {f"{kind}: {name}": [i.value, i.low, i.high] for name, i in named.items()}
        print(name, json.dumps({k: np.round(v, 4).tolist() for k, v in said.items()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
