"""Graph and walks: the external build from 3M to 30M edges, walks and top T against plain numpy, torch and DGL.

    python -m benchmarks.walks --quick

Two graphs: the baskets of the default data set, and generated boards of a topic each with items of uneven popularity
(full size: 1M items, 1M boards, 30M edges; its smaller brother has a tenth of everything). Every measurement runs in a
process of its own and counts CPU seconds of all its threads. DGL's `PinSAGESampler` is measured where `import dgl`
works (`pip install dgl==1.1.3`; later wheels refuse a newer torch); it ends walks where ours restart, so both walk
without restarts then. Peak memory contains the pages of the mapped graph that were touched.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._report import Figure, arguments, report
from components.graph.bipartite import BipartiteGraph
from components.graph.build import GraphBuilder, Pruning
from components.graph.walks import WalkConfig, Walker
from components.graph.walks_plain import walk_plain
from components.history.keys import mix

BOARD_SIZE = 30
TOPICS = 200
CHUNK = 20_000
"""Boards generated at once."""

Edges = Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]


@dataclass(frozen=True)
class Size:
    """Edges of the generated graphs, share of the default data, items walked from by each walker."""

    small: int
    large: int
    default: float
    items: dict[str, int]


SIZES = {
    True: Size(100_000, 1_000_000, 0.1, {"numba": 3_000, "torch": 50, "numpy": 50, "dgl": 300}),
    False: Size(3_000_000, 30_000_000, 1.0, {"numba": 100_000, "torch": 1_000, "numpy": 300, "dgl": 5_000}),
}


# -- the graphs ------------------------------------------------------------------------------------------


def generated(edges: int) -> Edges:
    """`edges` saves on `edges` / 30 boards of as many items; four of five saves are of the board's topic."""
    n = edges // BOARD_SIZE
    for first in range(0, n, CHUNK):
        rng = np.random.default_rng(first)
        boards = np.repeat(np.arange(first, min(first + CHUNK, n)), BOARD_SIZE)
        popular = rng.random(len(boards)) ** 2
        on_topic = rng.random(len(boards)) < 0.8
        own = (popular * (n // TOPICS)).astype(np.int64) * TOPICS + boards % TOPICS
        items = np.where(on_topic, own, (popular * n).astype(np.int64)) + 1
        yield items.astype(np.int32), (mix(boards) >> np.uint64(1)).astype(np.int64)


def default_data(share: float) -> tuple[Edges, int]:
    """Baskets and products of the default data set, and the number of rows of an item table."""
    from pinloom.datasets import load_dataset
    from pinloom.datasets.completejourney.reader import CompleteJourney

    bought = CompleteJourney(load_dataset("completejourney"), users_sample=1.0).transactions
    bought = bought.head(round(share * bought.height))
    items = bought["product_id"].rank("dense").cast(int).to_numpy().astype(np.int32)
    return iter([(items, (mix(bought["basket_id"].to_numpy()) >> np.uint64(1)).astype(np.int64))]), int(items.max()) + 1


def build(root: Path, edges: Edges, n_items: int, expected: int) -> dict[str, float]:
    """Only the builder is timed, not what makes the edges."""
    builder = GraphBuilder(root, np.zeros(n_items, np.int32), expected, Pruning(repeats="largest"))
    cpu = wall = 0.0
    for items, boards in edges:
        cpu, wall = cpu - time.process_time(), wall - time.perf_counter()
        builder.add(items, boards, np.ones(len(items), np.float32))
        cpu, wall = cpu + time.process_time(), wall + time.perf_counter()
    cpu, wall = cpu - time.process_time(), wall - time.perf_counter()
    counts = builder.finish()
    return {"cpu": cpu + time.process_time(), "wall": wall + time.perf_counter(), "edges": counts.edges}


def build_generated(root: Path, edges: float) -> dict[str, float]:
    return build(root, generated(int(edges)), int(edges) // BOARD_SIZE + 1, int(edges))


def build_default(root: Path, share: float) -> dict[str, float]:
    edges, n_items = default_data(share)
    return build(root, edges, n_items, 1)


# -- the walkers -----------------------------------------------------------------------------------------


def timed(walk: Callable[[NDArray[np.int32]], object], graph: BipartiteGraph, items: float) -> dict[str, float]:
    """Items per CPU second, over linked items spread evenly; the first call compiles and warms."""
    linked = np.flatnonzero(graph.degree).astype(np.int32)
    starts = linked[:: max(1, len(linked) // int(items))][: int(items)]
    walk(starts[:20])
    cpu, wall = time.process_time(), time.perf_counter()
    walk(starts)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "rate": len(starts) / cpu}


def walk_numba(root: Path, items: float) -> dict[str, float]:
    graph = BipartiteGraph.load(root)
    return timed(Walker(graph, WalkConfig()).walk, graph, items)


def walk_numba_without_restarts(root: Path, items: float) -> dict[str, float]:
    graph = BipartiteGraph.load(root)
    return timed(Walker(graph, WalkConfig(restart=0.0)).walk, graph, items)


def walk_numpy(root: Path, items: float) -> dict[str, float]:
    graph = BipartiteGraph.load(root)
    return timed(lambda starts: walk_plain(graph, WalkConfig(), starts), graph, items)


def walk_torch(root: Path, items: float) -> dict[str, float]:
    from components.graph.walks_torch import TorchWalker

    graph = BipartiteGraph.load(root)
    return timed(TorchWalker(graph, WalkConfig()).walk, graph, items)


def walk_dgl(root: Path, items: float) -> dict[str, float]:
    os.environ["DGLBACKEND"] = "pytorch"
    import dgl  # type: ignore[import-not-found]
    import torch

    graph, config = BipartiteGraph.load(root), WalkConfig()
    edges = (
        torch.from_numpy(np.repeat(np.arange(graph.items), graph.degree)),
        torch.from_numpy(np.array(graph.item_boards, np.int64)),
    )
    both = dgl.heterograph(
        {("item", "on", "board"): edges, ("board", "holds", "item"): edges[::-1]},
        num_nodes_dict={"item": graph.items, "board": graph.boards},
    )
    walk = dgl.sampling.PinSAGESampler(both, "item", "board", config.length, 0.0, config.walks, config.top)
    return timed(lambda starts: walk(torch.from_numpy(starts.astype(np.int64))), graph, items)


MEASURED = {
    "build_generated": build_generated,
    "build_default": build_default,
    "numba": walk_numba,
    "numba_without_restarts": walk_numba_without_restarts,
    "numpy": walk_numpy,
    "torch": walk_torch,
    "dgl": walk_dgl,
}


def measure(what: str, root: Path, number: float) -> dict[str, float]:
    """One measurement in a new process: CPU and wall seconds, its own numbers, and the peak memory in MB."""
    command = [sys.executable, "-m", "benchmarks.walks", "--measure", what, str(root), str(number)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def _measure_here(what: str, root: Path, number: float) -> None:
    said = MEASURED[what](root, number)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({**said, "mb": int(peak.split()[1]) / 1024}))


# -- figures ---------------------------------------------------------------------------------------------


def figures(size: Size) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="pinloom-walks-") as name:
        small, large, default = (Path(name) / which for which in ("small", "large", "default"))
        measure("build_default", default, size.default)
        built = {root: measure("build_generated", root, n) for root, n in ((small, size.small), (large, size.large))}
        walked = {root: measure("numba", root, size.items["numba"]) for root in (small, large)}
        grown = f"{size.small / 1e6:g}M -> {size.large / 1e6:g}M edges"
        return [
            *_growth("build, CPU s per M edges", grown, [b["cpu"] / b["edges"] * 1e6 for b in built.values()], 1.5),
            *_growth("build, peak MB", grown, [b["mb"] for b in built.values()], 3),
            *_growth("walks, CPU ms per item", grown, [1000 / w["rate"] for w in walked.values()], 2),
            *_growth("walks, peak MB", grown, [w["mb"] for w in walked.values()], 10),
            *_rivals("default data", default, size),
            *_rivals(f"{size.large / 1e6:g}M edges", large, size),
        ]


def _growth(what: str, grown: str, values: list[float], at_most: float) -> list[Figure]:
    before, after = values
    return [Figure(f"{what}, {grown}", after, before, f"<= {at_most:g}x", after <= at_most * before)]


def _rivals(where: str, root: Path, size: Size) -> list[Figure]:
    ours = measure("numba", root, size.items["numba"])["rate"]
    rates = {rival: measure(rival, root, size.items[rival])["rate"] for rival in ("numpy", "torch")}
    found = [_faster(f"{where}: items per CPU s, compiled / {rival}", ours, rate, 5) for rival, rate in rates.items()]
    if importlib.util.find_spec("dgl") is None:
        print("DGL is not installed: no figure against it", file=sys.stderr)
        return found
    alike = measure("numba_without_restarts", root, size.items["numba"])["rate"]
    dgl = measure("dgl", root, size.items["dgl"])["rate"]
    return [*found, _faster(f"{where}: items per CPU s, compiled / DGL", alike, dgl, 1)]


def _faster(name: str, ours: float, rival: float, at_least: float) -> Figure:
    return Figure(name, ours, rival, f">= {at_least:g}x", ours >= at_least * rival)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--measure", nargs=3, metavar=("WHAT", "ROOT", "NUMBER"), help="one, in here")
    args = parser.parse_args()
    if args.measure:
        what, root, number = args.measure
        _measure_here(what, Path(root), float(number))
        return 0
    return 0 if report(figures(SIZES[args.quick]), args.json) else 1


if __name__ == "__main__":
    sys.exit(main())
