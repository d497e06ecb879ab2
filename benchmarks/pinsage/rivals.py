"""PinSage and its rivals on the held-out pairs of one split: hit-rate@K, scaled MRR, intervals by user, spread.

The models are the artifacts that `benchmarks.pinsage.search --keep` left, one folder each; the folder named first is
compared with all others, by paired differences.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.pinsage.search import job_of
from components.evaluation.bootstrap import Bootstrap, Interval, Ratio
from components.evaluation.related import HeldOut, Scorer, by_popularity, by_vectors, spread
from components.graph.bipartite import BipartiteGraph
from components.graph.walks import WalkConfig
from components.models.pinsage.artifact import load_pinsage
from components.models.pinsage.catalogue import Catalogue, by_name
from components.models.pinsage.inference import embed
from components.recipe import RecipeInputs
from pinloom.evaluation.related import CONTENT, rivals

WALK = WalkConfig(top=1000, walks=512, length=16, band_size=0)
Vectors = np.ndarray


def models(folders: list[Path], catalogue: Catalogue) -> Iterator[tuple[str, Vectors]]:
    """Vectors of each artifact, and its short ones."""
    import torch

    for folder in folders:
        model = load_pinsage(folder)
        vectors = embed(model, catalogue.nearest(model.config.neighbours))
        yield folder.name, vectors
        yield f"{folder.name} | short", model.compact(torch.from_numpy(vectors)).numpy()


def sample_of(items: int, size: int) -> np.ndarray:
    """A fixed sample of the catalogue. bool [N]."""
    chosen = np.zeros(items, bool)
    chosen[np.random.default_rng(0).permutation(np.arange(1, items))[:size]] = True
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="artifacts")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--pairs", type=int, default=30_000, help="of the split at most, a fixed sample")
    parser.add_argument("--sample", type=int, default=10_000, help="items of the fixed sample; 0 = none")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    inputs = job_of({}, {}).inputs()
    catalogue = Catalogue.load(inputs.files)
    pairs = HeldOut.of(pl.read_parquet(inputs.files(f"pairs/{args.split}")), args.pairs)
    cold = (catalogue.degree[pairs.query] == 0) | (catalogue.degree[pairs.positive] == 0)
    boot, sample = Bootstrap(pairs.users, 1000), sample_of(len(catalogue), args.sample)
    print(f"{len(pairs)} pairs of {pairs.users} users, {cold.mean():.1%} with a cold item", flush=True)
    first: dict[str, Ratio] = {}
    for name, scorer, vectors in everything(inputs, catalogue, args.folders):
        found = pairs.places(scorer)
        of = pairs.measures(found)
        of |= {f"{k} cold": v for k, v in pairs.measures(found, (100,), cold).items()}
        if args.sample:
            of |= {f"{k} sample": v for k, v in pairs.measures(pairs.places(scorer, sample), (100,)).items()}
        first = first or of
        estimates = dict(zip(of, boot.intervals(list(of.values())), strict=True))
        gains = dict(zip(of, boot.differences([first[k] for k in of], list(of.values())), strict=True))
        line: dict[str, Any] = {"name": name, "measures": _plain(estimates), "first minus": _plain(gains)}
        if vectors is not None:
            line |= {"kurtosis": spread(vectors).kurtosis, "similarity": spread(vectors).mean}
        with args.out.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(name, {k: [round(x, 4) for x in v] for k, v in line["measures"].items()}, flush=True)
    return 0


def everything(
    inputs: RecipeInputs, catalogue: Catalogue, folders: list[Path]
) -> Iterator[tuple[str, Scorer, Vectors | None]]:
    for name, vectors in models(folders, catalogue):
        yield name, by_vectors(vectors), vectors
    graph = BipartiteGraph.load(by_name(inputs.files("graph")))
    content, pairs = catalogue.content[:, :-1], pl.read_parquet(inputs.files("pairs/train"))
    untrained = {"number of boards": by_popularity(graph.degree), **rivals(graph, pairs, content, WALK)}
    for name, scorer in untrained.items():
        yield name, scorer, content if name == CONTENT else None


def _plain(found: dict[str, Interval]) -> dict[str, tuple[float, float, float]]:
    return {k: (i.value, i.low, i.high) for k, i in found.items()}


if __name__ == "__main__":
    sys.exit(main())
