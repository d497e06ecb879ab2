"""What TransAct costs the ranker, and what its exact shortcuts save: time and FLOPs of ranking one user's candidates.

Rivals in the same run: the ranker without the sequence (the paper's Table 11 asks for before and after), and the same
weights in PyTorch's own encoder layers over every candidate's tokens. Outputs are compared before anything is timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._report import Figure, exit_code
from benchmarks._timing import best_seconds
from components.history.schema import FeatureSchema
from components.models.ranker.batch import RankingBatch, Sequence
from components.models.ranker.model import Ranker, Reading, SequenceModule
from components.models.transact.config import TransActConfig
from components.models.transact.model import TransAct
from components.models.transact.recipe import TransActRecipe
from components.nn.attention import fused_tokens

ACTIONS = ("click", "save", "hide")
SCHEMA = FeatureSchema(
    service="benchmark",
    heads=ACTIONS,
    actions=ACTIONS,
    item_numeric=tuple(f"item{i}" for i in range(6)),
    candidate_numeric=tuple(f"candidate{i}" for i in range(10)),
    user_numeric=tuple(f"user{i}" for i in range(6)),
    categorical=("category", "brand", "type"),
    crosses=(),
)


class Plain(SequenceModule):
    """The twin: `module`'s weights in `nn.TransformerEncoderLayer`, every token of every candidate projected."""

    def __init__(self, module: TransAct) -> None:
        super().__init__()
        c = module.config
        dim = SCHEMA.vector_dim * 2 + c.action_dim
        self.module = module
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, c.attention_heads, c.ffn, 0.0, batch_first=True) for _ in range(c.layers)
        )
        assert isinstance(module.encoder, nn.ModuleList)
        for mine, theirs in zip(self.layers, module.encoder, strict=True):
            mine.load_state_dict(theirs.state_dict())
        self.out_dim = module.out_dim

    def read(self, batch: RankingBatch) -> Reading:
        action, sequence = self.module.action, batch.sequence
        assert action is not None
        shared = torch.cat([action(sequence.action_UL), sequence.vector_ULD], dim=-1)
        padding = (sequence.action_UL == 0)[batch.row_of_B]
        x = fused_tokens(shared, batch.candidate_vector_BD, batch.row_of_B)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        return Reading(self.module.readout(x, padding))


def ranker(sequence: str, plain: bool = False) -> Ranker:
    torch.manual_seed(0)
    made = TransActRecipe.build_ranker(TransActConfig(sequence=sequence), SCHEMA).eval()
    if plain:
        module = made.sequences["actions"]
        assert isinstance(module, TransAct)
        made.sequences["actions"] = Plain(module).eval()
    return made


def batch(candidates: int, length: int = 100) -> RankingBatch:
    """One user with a full history."""
    draw = torch.Generator().manual_seed(1)
    hashes = torch.randint(1, 2**31, (candidates, 3), generator=draw)
    one = torch.zeros(1, dtype=torch.int64)
    return RankingBatch(
        sequence=Sequence(
            vector_ULD=torch.randn(1, length, SCHEMA.vector_dim, generator=draw),
            item_key_UL=torch.randint(1, 2**62, (1, length), generator=draw),
            action_UL=torch.randint(1, len(ACTIONS) + 1, (1, length), generator=draw),
            timestamp_UL=torch.zeros(1, length, dtype=torch.int64),
            surface_UL=torch.zeros(1, length, dtype=torch.int64),
            request_time_U=one,
        ),
        candidate_vector_BD=torch.randn(candidates, SCHEMA.vector_dim, generator=draw),
        candidate_key_B=hashes[:, 0],
        candidate_hash_B=hashes[:, 0],
        candidate_categorical_BC=hashes,
        candidate_surface_B=hashes[:, 1],
        candidate_numeric_BF=torch.randn(candidates, len(SCHEMA.candidate_numeric), generator=draw),
        candidate_age_B=torch.full((candidates,), 100.0),
        user_hash_U=one + 7,
        user_weight_U=torch.ones(1),
        user_numeric_UG=torch.randn(1, len(SCHEMA.user_numeric), generator=draw),
        row_of_B=torch.zeros(candidates, dtype=torch.int64),
        labels_BH=torch.zeros(candidates, len(ACTIONS)),
        negative_rate_U=torch.ones(1),
        sampling_B=torch.ones(candidates),
    )


def flops(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def figures(candidates: int, rounds: int) -> list[Figure]:
    rows = batch(candidates)
    models = {"transact": ranker("transact"), "plain": ranker("transact", plain=True), "noseq": ranker("none")}
    runs: dict[str, Callable[[], Tensor]] = {name: partial(model, rows) for name, model in models.items()}
    torch.testing.assert_close(runs["transact"](), runs["plain"](), rtol=1e-4, atol=1e-5)
    took, cost = best_seconds(runs, rounds), {name: flops(run) for name, run in runs.items()}
    what = f"of ranking {candidates} candidates"
    return [
        ratio(f"time {what}: TransAct over the ranker without it", took["transact"], took["noseq"]),
        ratio(f"FLOPs {what}: TransAct over the ranker without it", cost["transact"], cost["noseq"]),
        ratio(f"time {what}: TransAct over PyTorch's layers", took["transact"], took["plain"], 1.0),
        ratio(f"FLOPs {what}: TransAct over PyTorch's layers", cost["transact"], cost["plain"], 1.0),
    ]


def ratio(figure: str, ours: float, theirs: float, most: float | None = None) -> Figure:
    """Ours over theirs. `most`: the largest ratio that holds; None = reported only."""
    goal = "reported" if most is None else f"<= {most:g}"
    return Figure(figure, ours / theirs, 1.0, goal, most is None or ours / theirs <= most)


@torch.inference_mode()
def main() -> int:
    torch.set_num_threads(1)
    return exit_code(__doc__, lambda quick: figures(200, 5) if quick else figures(1000, 15))


if __name__ == "__main__":
    sys.exit(main())
