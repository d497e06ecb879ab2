"""PinSage and its rivals on the held-out pairs of one split: hit-rate@K, scaled MRR, intervals by user, spread.

The models are artifacts that `benchmarks.pinsage.search --keep` left; the one named first is compared with all others,
by paired differences.
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
import torch
from numpy.typing import NDArray

from benchmarks.pinsage.worlds import PAIRS, World
from components.evaluation.bootstrap import Bootstrap, Interval, Ratio
from components.evaluation.related import HeldOut, Scorer, by_vectors, spread, times_chosen
from components.graph.bipartite import BipartiteGraph
from components.graph.walks import WalkConfig
from components.models.pinsage.artifact import load_pinsage
from components.models.pinsage.catalogue import Catalogue, by_name
from components.models.pinsage.inference import embed
from pinloom.evaluation.related import CONTENT, matched_by_popularity, rivals

WALK = WalkConfig(top=1000, walks=512, length=16, band_size=0)
Vectors = NDArray[np.float32]


def said_of(found: Path) -> dict[str, dict[str, Any]]:
    """Lines of a search's output by name."""
    return {line["name"]: line for line in map(json.loads, found.read_text().splitlines())}


def embedded(artifact: Path, world: World) -> tuple[Vectors, Vectors]:
    """Vectors of an artifact on the tables that it was trained on, and its short ones."""
    model = load_pinsage(artifact)
    vectors = embed(model, Catalogue.load(world.inputs({}).files).as_read_by(model.config))
    with torch.no_grad():
        return vectors, model.compact(torch.from_numpy(vectors)).numpy()


def everything(args: argparse.Namespace) -> Iterator[tuple[str, Scorer, Vectors | None]]:
    said = said_of(args.found)
    for name in args.names:
        vectors, _ = embedded(args.keep / name, World(**said[name].get("world", {})))
        yield name, by_vectors(vectors), vectors
    world = World()
    inputs = world.inputs({})
    graph, content = BipartiteGraph.load(by_name(inputs.files("graph"))), Catalogue.load(inputs.files).content[:, :-1]
    for source in PAIRS[args.pairs]:
        every = rivals(graph, world.counted(source), content, WALK)
        for name in args.rivals or every:
            yield name, every[name], content if name == CONTENT else None


def measured(pairs: HeldOut, scorer: Scorer, chosen: NDArray[np.float64], cold: NDArray[np.bool_]) -> dict[str, Ratio]:
    found = pairs.places(scorer)
    of = pairs.measures(found)
    of |= {f"{name} cold": ratio for name, ratio in pairs.measures(found, (100,), cold).items()}
    among, _ = matched_by_popularity(pairs, scorer, chosen)
    return of | among


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("found", type=Path, help="what the search wrote")
    parser.add_argument("keep", type=Path, help="folder of its artifacts")
    parser.add_argument("names", nargs="+", help="of configurations")
    parser.add_argument("--split", default="validation")
    parser.add_argument(
        "--pairs", default="next basket", choices=[p for p, sources in PAIRS.items() if len(sources) == 1]
    )
    parser.add_argument("--most", type=int, default=30_000, help="pairs, a fixed sample")
    parser.add_argument("--rivals", nargs="*", default=(), help="only these of the untrained ones")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    world = World()
    (source,) = PAIRS[args.pairs]
    pairs = world.asked(source, args.split, args.most)
    degree = Catalogue.load(world.inputs({}).files).degree
    cold = (degree[pairs.query] == 0) | (degree[pairs.positive] == 0)
    chosen, boot = times_chosen(world.counted(source), len(degree)), Bootstrap(pairs.users, 1000)
    print(f"{len(pairs)} pairs of {pairs.users} users, {cold.mean():.1%} with a cold item", flush=True)
    first: dict[str, Ratio] = {}
    for name, scorer, vectors in everything(args):
        of = measured(pairs, scorer, chosen, cold)
        first = first or of
        estimates = dict(zip(of, boot.intervals(list(of.values())), strict=True))
        gains = dict(zip(of, boot.differences([first[k] for k in of], list(of.values())), strict=True))
        line: dict[str, Any] = {"name": name, "measures": _plain(estimates), "first minus": _plain(gains)}
        if vectors is not None:
            line |= {"kurtosis": spread(vectors).kurtosis, "similarity": spread(vectors).mean}
        with args.out.open("a") as out:
            out.write(json.dumps({"split": args.split, "pairs": args.pairs, **line}) + "\n")
        print(name, {k: [round(x, 4) for x in v] for k, v in line["measures"].items()}, flush=True)
    return 0


def _plain(found: dict[str, Interval]) -> dict[str, tuple[float, float, float]]:
    return {k: (i.value, i.low, i.high) for k, i in found.items()}


if __name__ == "__main__":
    sys.exit(main())
