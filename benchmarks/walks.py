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
from dataclasses import dataclass, replace
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


ITEMS = {"numba": 100_000, "torch": 1_000, "numpy": 500, "dgl": 5_000}
"""Items walked from, by walker: as many as each needs for a steady figure."""


@dataclass(frozen=True)
class Size:
    """Edges of the generated graphs, share of the default data, share of `ITEMS`."""

    small: int
    large: int
    default: float
    items: float


SIZES = {True: Size(300_000, 3_000_000, 0.1, 0.04), False: Size(3_000_000, 30_000_000, 1.0, 1.0)}


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
    cpu = 0.0
    for items, boards in edges:
        began = time.process_time()
        builder.add(items, boards, np.ones(len(items), np.float32))
        cpu += time.process_time() - began
    began = time.process_time()
    counts = builder.finish()
    return {"cpu": cpu + time.process_time() - began, "edges": counts.edges}


def build_generated(root: Path, edges: float) -> dict[str, float]:
    return build(root, generated(int(edges)), int(edges) // BOARD_SIZE + 1, int(edges))


def build_default(root: Path, share: float) -> dict[str, float]:
    edges, n_items = default_data(share)
    return build(root, edges, n_items, 1)


# -- the walkers -----------------------------------------------------------------------------------------

Walk = Callable[[NDArray[np.int32]], object]


def compiled(graph: BipartiteGraph, config: WalkConfig) -> Walk:
    return Walker(graph, config).walk


def plain(graph: BipartiteGraph, config: WalkConfig) -> Walk:
    return lambda starts: walk_plain(graph, config, starts)


def on_torch(graph: BipartiteGraph, config: WalkConfig) -> Walk:
    from components.graph.walks_torch import TorchWalker

    return TorchWalker(graph, config).walk


def on_dgl(graph: BipartiteGraph, config: WalkConfig) -> Walk:
    os.environ["DGLBACKEND"] = "pytorch"
    import dgl  # type: ignore[import-not-found]
    import torch

    items = torch.from_numpy(np.repeat(np.arange(graph.items), graph.degree))
    boards = torch.from_numpy(np.array(graph.item_boards, np.int64))
    both = dgl.heterograph(
        {("item", "on", "board"): (items, boards), ("board", "holds", "item"): (boards, items)},
        num_nodes_dict={"item": graph.items, "board": graph.boards},
    )
    walk = dgl.sampling.PinSAGESampler(both, "item", "board", config.length, config.restart, config.walks, config.top)
    return lambda starts: walk(torch.from_numpy(starts.astype(np.int64)))


def rate(walk: Walk, graph: BipartiteGraph, items: int) -> float:
    """Items per CPU second, from linked items spread evenly over the catalogue; a first call compiles and warms."""
    linked = np.flatnonzero(graph.degree).astype(np.int32)
    starts = linked[:: max(1, len(linked) // items)][:items]
    walk(starts[:20])
    began = time.process_time()
    walk(starts)
    return len(starts) / (time.process_time() - began)


def walk_once(root: Path, share: float) -> dict[str, float]:
    graph = BipartiteGraph.load(root)
    return {"rate": rate(compiled(graph, WalkConfig()), graph, int(share * ITEMS["numba"]))}


def walk_all_ways(root: Path, share: float) -> dict[str, float]:
    """Rates by walker; `alike` is ours without restarts, as DGL walks."""
    graph, config = BipartiteGraph.load(root), WalkConfig()
    items = {walker: max(20, int(share * n)) for walker, n in ITEMS.items()}
    rates = {
        "numba": rate(compiled(graph, config), graph, items["numba"]),
        "numpy": rate(plain(graph, config), graph, items["numpy"]),
        "torch": rate(on_torch(graph, config), graph, items["torch"]),
    }
    if importlib.util.find_spec("dgl") is not None:
        alike = replace(config, restart=0.0)
        rates["alike"] = rate(compiled(graph, alike), graph, items["numba"])
        rates["dgl"] = rate(on_dgl(graph, alike), graph, items["dgl"])
    return rates


MEASURED = {
    "build_generated": build_generated,
    "build_default": build_default,
    "walk_once": walk_once,
    "walk_all_ways": walk_all_ways,
}


def measure(what: str, root: Path, number: float) -> dict[str, float]:
    """One measurement in a new process: its numbers and the peak memory in MB."""
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
        walked = {root: measure("walk_once", root, size.items) for root in (small, large)}
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
    rates = measure("walk_all_ways", root, size.items)
    found = [
        _faster(f"{where}: items per CPU s, compiled / numpy", rates["numba"], rates["numpy"], 5),
        _faster(f"{where}: items per CPU s, compiled / torch", rates["numba"], rates["torch"], 2),
    ]
    if "dgl" in rates:
        found.append(_faster(f"{where}: items per CPU s, compiled / DGL", rates["alike"], rates["dgl"], 2))
    else:
        print("DGL is not installed: no figure against it", file=sys.stderr)
    return found


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
