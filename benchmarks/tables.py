"""Embedding tables in int4 and int8 against float32: time and bytes of a gather, what rounding costs, who ranks alike.

The requests are those of PinFM's hashed tables: eight sub-tables, one row of 32 values of each for every id of a user's
256 events and 1,000 candidates, ids drawn by Zipf's law. The rival of a gather is `torch.index_select` on float32 rows
that lie in memory. Rankings are DCAT's with untrained weights, from int4, int8 and float32 vectors of the same ids.
Everything is timed in turns with two threads; the best round counts.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks._report import Figure, exit_code
from benchmarks._timing import best_seconds
from components.nn.decoder import CausalDecoder, DecoderConfig
from components.serving.dcat import cross, encode_context
from components.serving.tables import QuantisedTable

TABLES, WIDTH, EVENTS, CANDIDATES = 8, 32, 256, 1000
NAMES = {4: "int4", 8: "int8", 32: "mapped float32"}


def written(folder: Path, rows: int) -> tuple[Tensor, dict[int, QuantisedTable]]:
    """A Gaussian table [8 · rows, 32], and mapped files of it by bits."""
    weight = torch.randn(TABLES * rows, WIDTH, generator=torch.Generator().manual_seed(0)) * (TABLES * WIDTH) ** -0.5
    for bits in (4, 8, 32):
        blocks = (part.numpy() for part in weight.split(65_536))
        QuantisedTable.write(folder / str(bits), blocks, rows=len(weight), bits=bits)
    return weight, {bits: QuantisedTable.open(folder / str(bits)) for bits in (4, 8, 32)}


def request(rows: int, seed: int) -> Tensor:
    """Rows of one request's ids, int64 [events and candidates, 8]."""
    rng = np.random.default_rng(seed)
    ids = rng.zipf(1.2, EVENTS + CANDIDATES) % (100 * rows)
    # Any good hash will do: the same id has the same rows.
    hashed = [np.random.default_rng(int(i)).integers(0, rows, TABLES) for i in ids]
    return torch.from_numpy(np.stack(hashed) + np.arange(TABLES) * rows)


def gathering(weight: Tensor, tables: dict[int, QuantisedTable], rows: Tensor, what: str, rounds: int) -> list[Figure]:
    """Time of one gather of `rows`, `what`, by table over float32 in memory."""
    runs: dict[str, Callable[[], object]] = {"memory": lambda: weight.index_select(0, rows.view(-1))}
    runs |= {NAMES[bits]: partial(table.gather, rows) for bits, table in tables.items()}
    took = best_seconds(runs, rounds)
    ratios = {name: took[name] / took["memory"] for name in NAMES.values()}
    return [Figure(f"time of {what}: {name} over float32", r, 1.0, "reported", True) for name, r in ratios.items()]


def sizes(tables: dict[int, QuantisedTable]) -> list[Figure]:
    figures = []
    for bits, goal in ((4, 160 / 1024), (8, 288 / 1024)):
        size = tables[bits].nbytes / tables[32].nbytes
        figures.append(Figure(f"bytes of a table: {NAMES[bits]} over float32", size, 1.0, f"<= {goal:g}", size <= goal))
    return figures


def errors(weight: Tensor, tables: dict[int, QuantisedTable]) -> list[Figure]:
    """Relative L2 errors, against the paper's."""
    some = torch.arange(min(len(weight), 100_000))
    figures = []
    for bits, papers in ((4, 0.078), (8, 0.0045)):
        error = float((tables[bits].gather(some) - weight[some]).norm() / weight[some].norm())
        close = abs(error / papers - 1) < 0.05
        figures.append(Figure(f"relative L2 error of {NAMES[bits]}", error, papers, "within 5%", close))
    return figures


@torch.inference_mode()
def agreement(tables: dict[int, QuantisedTable], requests: list[Tensor]) -> list[Figure]:
    """Spearman's correlation of a request's scores with those of float32 vectors; the worst request."""
    torch.manual_seed(0)
    decoder = CausalDecoder(DecoderConfig(dim=TABLES * WIDTH)).eval()
    reads = torch.randn(TABLES * WIDTH)
    found: dict[int, list[Tensor]] = {bits: [] for bits in tables}
    for rows in requests:
        for bits, table in tables.items():
            x = torch.nn.functional.normalize(table.gather(rows).flatten(-2), dim=-1)
            context = encode_context(decoder, x[None, :EVENTS])
            candidates = torch.unique(rows[EVENTS:], dim=0, return_inverse=True)[1]
            first = torch.stack([(candidates == c).nonzero()[0, 0] for c in range(int(candidates.max()) + 1)])
            states = cross(decoder, context, x[EVENTS:][first, None], torch.zeros(len(first), dtype=torch.int64))
            found[bits].append(states @ reads)
    worst = {bits: min(map(spearman, found[bits], found[32])) for bits in (4, 8)}
    return [
        Figure(f"Spearman of scores, {NAMES[bits]} and float32", worst[bits], None, f">= {least}", worst[bits] >= least)
        for bits, least in ((4, 0.95), (8, 0.999))
    ]


def spearman(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([a, b]).argsort(1).argsort(1).double()
    return float(torch.corrcoef(ranks)[0, 1])


def figures(quick: bool) -> list[Figure]:
    torch.set_num_threads(2)
    rows, rounds = (20_000, 10) if quick else (500_000, 50)
    with tempfile.TemporaryDirectory(prefix="pinloom-benchmark-") as name:
        weight, tables = written(Path(name), rows)
        requests = [request(rows, seed) for seed in range(3)]
        anywhere = torch.randint(0, len(weight), (100_000,), generator=torch.Generator().manual_seed(1))
        return [
            *sizes(tables),
            *gathering(weight, tables, requests[0], "one request's gather", rounds),
            *gathering(weight, tables, anywhere, "100,000 rows anywhere", rounds),
            *errors(weight, tables),
            *agreement(tables, requests),
        ]


def main() -> int:
    return exit_code(__doc__, figures)


if __name__ == "__main__":
    sys.exit(main())
