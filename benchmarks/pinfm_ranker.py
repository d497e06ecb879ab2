"""What PinFM beside TransAct costs when ranking; what running the history once, and keeping it, saves.

The rival in each figure is 1: the same ranker without PinFM, or the same call done the other way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks._report import Figure, exit_code
from benchmarks._timing import best_seconds
from benchmarks.transact import SCHEMA, batch, flops, ratio
from components.models.pinfm.config import PinFMConfig
from components.models.pinfm_ranker.config import PinFMRankerConfig
from components.models.pinfm_ranker.model import PinFMModule
from components.models.pinfm_ranker.objective import Events
from components.models.pinfm_ranker.recipe import PinFMRankerRecipe
from components.models.ranker.batch import RankingBatch
from components.models.ranker.model import Ranker
from components.serving.dcat import full_run

CACHE_BYTES = 2**28


def ranker(base: str, cache: bool = False) -> Ranker:
    torch.manual_seed(0)
    config = PinFMRankerConfig(base=base, pinfm=None if base == "none" else PinFMConfig())
    made = PinFMRankerRecipe.build_ranker(config, SCHEMA).eval()
    if cache:
        made.remember(CACHE_BYTES)
    return made


def whole(model: Ranker, rows: RankingBatch) -> Tensor:
    """The candidates' states with each behind its own copy of the history: DCAT's twin, on the same tokens."""
    module = model.modules_by_name["pinfm"]
    assert isinstance(module, PinFMModule)
    base, events = module.base, Events.newest(rows, module.events)
    x_ULD = base.tokens(base.events(base.embed(events.key_UL), events.action_UL, events.surface_UL))
    x_BSD = module.candidate_tokens(rows, base.embed(rows.candidate_key_B))
    return full_run(base.decoder, x_ULD, events.length_U, x_BSD, rows.row_of_B)


def figures(candidates: int, rounds: int) -> list[Figure]:
    rows = batch(candidates)
    with_pinfm = ranker("scratch")
    module = with_pinfm.modules_by_name["pinfm"]
    runs: dict[str, Callable[[], object]] = {
        "both": partial(with_pinfm, rows),
        "kept": partial(ranker("scratch", cache=True), rows),
        "transact": partial(ranker("none"), rows),
        "module": partial(module.read, rows),
        "whole": partial(whole, with_pinfm, rows),
    }
    took, cost = best_seconds(runs, rounds), {name: flops(run) for name, run in runs.items() if name != "kept"}
    what = f"of ranking {candidates} candidates"
    return [
        ratio(f"time {what}: TransAct and PinFM over TransAct", took["both"], took["transact"]),
        ratio(f"FLOPs {what}: TransAct and PinFM over TransAct", cost["both"], cost["transact"]),
        ratio(f"time {what}: history kept from the last request over not", took["kept"], took["both"], 1.0),
        ratio("time of PinFM: DCAT over a full run of each candidate", took["module"], took["whole"], 1.0),
        ratio("FLOPs of PinFM: DCAT over a full run of each candidate", cost["module"], cost["whole"], 1.0),
    ]


@torch.inference_mode()
def main() -> int:
    torch.set_num_threads(1)
    return exit_code(__doc__, lambda quick: figures(200, 5) if quick else figures(1000, 15))


if __name__ == "__main__":
    sys.exit(main())
