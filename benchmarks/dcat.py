"""DCAT on two cores, L = 256, d = 256, 4 layers, 4 heads: one user's 1,000 candidates, many users, and training.

Rivals in the same run, with the same decoder and the same fast products (`components.nn.linear`): one masked pass over
[history; all candidates], keys and values repeated per candidate, the full causal run. Their outputs are compared
before anything is timed. The machine's rate is that of square products: by `torch.matmul`, and by the faster of it and
oneDNN. Everything is timed in turns; the best round counts, since whatever else the machine does only slows one down.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks._report import Figure, exit_code
from benchmarks._rivals import flops, full, masked_pass, repeated
from benchmarks._timing import best_seconds
from components.nn.decoder import CausalDecoder, DecoderConfig
from components.nn.linear import times_transposed
from components.serving.dcat import SLOTS, cross, encode_context, full_run
from components.serving.dcat.attention import Seen, crossing_attention

CONFIG = DecoderConfig(dim=256, layers=4, heads=4, ffn=1024, dropout=0.0)
LENGTH = 256
SIDE = 1024
PRODUCT = 2 * SIDE**3
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
Runs = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Size:
    candidates: int
    rounds: int
    users: int
    trained: int


SIZES = {True: Size(250, 5, 16, 1), False: Size(1000, 60, 64, 4)}


@dataclass(frozen=True)
class Case:
    """One user and candidates."""

    decoder: CausalDecoder
    x_1LD: Tensor
    x_B1D: Tensor

    @classmethod
    def draw(cls, candidates: int, dtype: torch.dtype) -> Case:
        torch.manual_seed(0)
        decoder = CausalDecoder(CONFIG).eval()
        x, c = torch.randn(1, LENGTH, CONFIG.dim), torch.randn(candidates, 1, CONFIG.dim)
        return cls(decoder.to(dtype), x.to(dtype), c.to(dtype))

    @property
    def flops(self) -> float:
        return flops(encode_context(self.decoder, self.x_1LD), len(self.x_B1D), CONFIG.dim, CONFIG.ffn)

    def dcat(self, *, states: bool = False, slots: int | None = None) -> Tensor:
        rows = torch.zeros(len(self.x_B1D), dtype=torch.int64)
        context = encode_context(self.decoder, self.x_1LD, states=states)
        return cross(self.decoder, context, self.x_B1D, rows, slots=slots)

    def rival(self, way: Callable[[CausalDecoder, Tensor, Tensor], Tensor]) -> Tensor:
        return way(self.decoder, self.x_1LD, self.x_B1D)


def rates(case: Case) -> Runs:
    """Square products by `torch.matmul` and by oneDNN, in both types: about as many as DCAT takes, so that whoever
    else uses the machine disturbs both alike."""
    runs: Runs = {}
    for dtype, name in TYPES.items():
        square, times = torch.randn(SIDE, SIDE).to(dtype), range(max(1, round(case.flops / PRODUCT)))
        products: dict[str, Callable[..., Tensor]] = {"matmul": torch.matmul, "onednn": times_transposed}
        for way, product in products.items():
            runs[f"{way} {name}"] = partial(_again, product, square, times)
    return runs


def _again(product: Callable[..., Tensor], square: Tensor, times: range) -> None:
    for _ in times:
        product(square, square)


@torch.inference_mode()
def serving(size: Size) -> Iterator[Figure]:
    cases = {name: Case.draw(size.candidates, dtype) for dtype, name in TYPES.items()}
    exact, half = cases["fp32"], cases["bf16"]
    expected = exact.dcat()
    for way in (masked_pass, repeated):
        torch.testing.assert_close(exact.rival(way), expected, rtol=1e-4, atol=1e-5)
    few = Case(exact.decoder, exact.x_1LD, exact.x_B1D[:25])
    torch.testing.assert_close(few.rival(full), expected[:25], rtol=1e-4, atol=1e-5)
    runs = rates(exact) | {
        "fp32": exact.dcat,
        "bf16": half.dcat,
        "whole last layer": partial(exact.dcat, states=True),
        "rotation": partial(exact.dcat, slots=SLOTS),
        "masked pass": partial(exact.rival, masked_pass),
    }
    took = best_seconds(runs, size.rounds)
    took |= best_seconds({"repeated": partial(exact.rival, repeated)}, 3)
    took |= {"full": best_seconds({"full": partial(few.rival, full)}, 6)["full"] * size.candidates / 25}
    yield from _of_the_machine(took, exact)
    yield _least("time of one masked pass (M-FALCON) over DCAT's", took["masked pass"] / took["fp32"], 1.8)
    yield _least("time with repeated keys and values over DCAT's", took["repeated"] / took["fp32"], 3)
    yield _least("time of the full causal run over DCAT's", took["full"] / took["fp32"], None)
    yield _least("time without the last layer's skip over with", took["whole last layer"] / took["fp32"], None)
    yield _least(f"time without rotation over with ({SLOTS} slots)", took["fp32"] / took["rotation"], None)
    yield from _half_against_whole(took, expected, half.dcat().float())


def _of_the_machine(took: dict[str, float], case: Case) -> Iterator[Figure]:
    work = case.flops / (max(1, round(case.flops / PRODUCT)) * PRODUCT)
    for name in TYPES.values():
        matmul, best = took[f"matmul {name}"], min(took[f"matmul {name}"], took[f"onednn {name}"])
        least = 0.8 if name == "fp32" else None
        yield _least(f"FLOP/s of DCAT over torch.matmul's, {name}", work * matmul / took[name], least)
        yield _least(f"FLOP/s of DCAT over the faster product's, {name}", work * best / took[name], None)


@torch.inference_mode()
def one_thread(size: Size) -> Iterator[Figure]:
    """By CPU time of one thread, which neither waits for another nor counts what other processes take."""
    case, rows = Case.draw(size.candidates, torch.float32), size.candidates
    layer, seen = case.decoder.layers[0], Seen((0, rows), (0,), (LENGTH,))
    context = encode_context(case.decoder, case.x_1LD)
    q, k, v, _ = layer.project(case.x_B1D, None)
    runs = rates(case) | {
        "all": case.dcat,
        "masked pass": partial(case.rival, masked_pass),
        "projections and FFN of candidates": lambda: layer.finish(case.x_B1D, layer.project(case.x_B1D, None).q, None),
        "crossing attention": lambda: crossing_attention(q, k, v, context.keys[0], context.values[0], seen),
        "context pass": lambda: encode_context(case.decoder, case.x_1LD),
    }
    work = {
        "all": case.flops,
        "projections and FFN of candidates": rows * 2.0 * CONFIG.dim * (4 * CONFIG.dim + 2 * CONFIG.ffn),
        "crossing attention": rows * 4.0 * CONFIG.dim * (LENGTH + 1),
        "context pass": flops(context, 0, CONFIG.dim, CONFIG.ffn),
    }
    torch.set_num_threads(1)
    took = best_seconds(runs, size.rounds // 4, time.process_time)
    torch.set_num_threads(2)
    done = max(1, round(case.flops / PRODUCT)) * PRODUCT
    ratio = case.flops / done * took["matmul fp32"] / took["all"]
    yield _least("one thread: FLOP/s of DCAT over torch.matmul's", ratio, None)
    for name, flop in work.items():
        ratio = flop / took[name] / (done / took["onednn fp32"])
        yield _least(f"one thread: FLOP/s over the faster product's, {name}", ratio, None)
    yield _least("one thread: time of one masked pass over DCAT's", took["masked pass"] / took["all"], None)


def _half_against_whole(took: dict[str, float], exact: Tensor, half: Tensor) -> Iterator[Figure]:
    best = {name: min(took[f"matmul {name}"], took[f"onednn {name}"]) for name in TYPES.values()}
    machine = best["fp32"] / best["bf16"]
    yield _least("speed-up by bf16 over the machine's", took["fp32"] / took["bf16"] / machine, 0.6)
    reads = torch.randn(CONFIG.dim)
    ranks = torch.stack([exact @ reads, half @ reads]).argsort(1).argsort(1).double()
    yield _least("Spearman of bf16 scores and fp32 ones", float(torch.corrcoef(ranks)[0, 1]), 0.999)


@torch.inference_mode()
def ratios(size: Size) -> Iterator[Figure]:
    """Candidates of one user, from one to all, by CPU time of one thread."""
    torch.set_num_threads(1)
    for count in (1, 10, 100, 1000):
        if count <= size.candidates:
            case = Case.draw(count, torch.float32)
            runs: Runs = {
                "dcat": case.dcat,
                "whole last layer": partial(case.dcat, states=True),
                "rotation": partial(case.dcat, slots=SLOTS),
                "repeated": partial(case.rival, repeated),
            }
            took = best_seconds(runs, 10 if count < 1000 else 3, time.process_time)
            few = Case(case.decoder, case.x_1LD, case.x_B1D[:25])
            took |= best_seconds({"full": partial(few.rival, full)}, 3, time.process_time)
            ratio, what = took["full"] * count / len(few.x_B1D) / took["dcat"], f"one thread, 1:{count}: time"
            yield _least(f"{what} of the full run over DCAT's", ratio, None)
            yield _least(f"{what} with repeated keys and values over DCAT's", took["repeated"] / took["dcat"], None)
            yield _least(
                f"{what} without the last layer's skip over with", took["whole last layer"] / took["dcat"], None
            )
            yield _least(f"{what} without rotation over with", took["dcat"] / took["rotation"], None)
    torch.set_num_threads(2)


@torch.inference_mode()
def uneven(size: Size) -> Figure:
    """The crossing pass alone: contexts are there, which makes unevenness as costly as it can be."""
    case, users, each = Case.draw(size.users * 16, torch.float32), size.users, 16
    context = encode_context(case.decoder, torch.randn(users, LENGTH, CONFIG.dim))
    share = 1 / torch.arange(1, users + 1) ** 1.1
    counts = (share / share.sum() * users * each).long()
    counts[0] += users * each - counts.sum()
    counts = counts[torch.randperm(users, generator=torch.Generator().manual_seed(0))]
    even = torch.arange(users).repeat_interleave(each)
    rows = torch.arange(users).repeat_interleave(counts)
    runs: Runs = {
        "even": lambda: cross(case.decoder, context, case.x_B1D, even),
        "uneven": lambda: cross(case.decoder, context, case.x_B1D, rows),
    }
    took = best_seconds(runs, size.rounds)
    name = f"crossing time of {users} users, 1 to {counts.max()} candidates, over {each} each"
    ratio = took["uneven"] / took["even"]
    return Figure(name, ratio, 1.0, "<= 1.15", ratio <= 1.15)


def training(size: Size) -> Figure:
    """Forward and backward at 1:10."""
    torch.manual_seed(0)
    decoder, users = CausalDecoder(CONFIG), size.trained
    x, candidates = torch.randn(users, LENGTH, CONFIG.dim), torch.randn(10 * users, 1, CONFIG.dim)
    length, rows = torch.full((users,), LENGTH), torch.arange(users).repeat_interleave(10)
    towards = torch.randn(10 * users, CONFIG.dim)

    def step(states: Callable[[], Tensor]) -> list[Tensor]:
        decoder.zero_grad()
        (states() * towards).sum().backward()
        return [p.grad for p in decoder.parameters() if p.grad is not None]

    ways: dict[str, Callable[[], Tensor]] = {
        "dcat": lambda: cross(decoder, encode_context(decoder, x, length), candidates, rows),
        "full": lambda: full_run(decoder, x, length, candidates, rows),
    }
    runs: Runs = {name: partial(step, way) for name, way in ways.items()}
    mine, theirs = (step(ways[name]) for name in ("dcat", "full"))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
    took = best_seconds(runs, max(3, size.rounds // 5))
    return _least("training step at 1:10: time of the full run over DCAT's", took["full"] / took["dcat"], 5)


@torch.inference_mode()
def memory(size: Size) -> Iterator[Figure]:
    case = Case.draw(size.candidates, torch.float32)
    mine = peak_bytes(case.dcat)
    for name, way in {
        "one masked pass": masked_pass,
        "repeated keys and values": repeated,
        "25 full runs": full,
    }.items():
        yield _least(f"peak memory of {name} over DCAT's", peak_bytes(partial(case.rival, way)) / mine, None)
    yield Figure("peak memory of DCAT in MiB", mine / 2**20, None, "reported", True)


def peak_bytes(run: Callable[[], object]) -> float:
    """Resident memory that a run needs beyond what was there before (Linux)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def _resident(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(name))


def _least(figure: str, value: float, goal: float | None) -> Figure:
    """`goal`: the smallest value that holds; None = reported only."""
    return Figure(figure, value, None, "reported" if goal is None else f">= {goal:g}", goal is None or value >= goal)


def figures(quick: bool) -> Iterator[Figure]:
    torch.set_num_threads(2)
    size = SIZES[quick]
    yield from serving(size)
    yield from one_thread(size)
    yield from ratios(size)
    yield uneven(size)
    yield training(size)
    yield from memory(size)


def main() -> int:
    return exit_code(__doc__, figures)


if __name__ == "__main__":
    sys.exit(main())
