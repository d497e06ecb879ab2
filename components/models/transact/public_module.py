"""Weights of Pinterest's public TransAct module (`pinterest/transformer_user_action`, Apache-2.0) in ours.

Its quirks, which `public_module=True` reproduces: the first word of its vocabulary has index 0 and so is padding;
padded positions keep their outputs and take part in the pooling; the newest position is never hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from components.errors import UserError
from components.models.transact.config import TransActConfig
from components.models.transact.model import TransAct

RENAMED = {
    "action_emb_module.": "action.",
    "transformer_encoder.layers.": "encoder.",
    "out_linear.": "readout.linear.",
}
IGNORED = "action_type_lookup"
MILLISECOND = 1_000
"""The module counts milliseconds, our sequences microseconds."""


def action_rows(raw: Tensor, vocabulary: Sequence[int]) -> Tensor:
    """Rows of the action table for raw action ids (−1 = padding), as the module's look-up maps them.

    Args:
        raw: int64 of any shape.
        vocabulary: the module's `action_vocab`; the lowest id becomes 0, which is padding.
    """
    table = torch.zeros(max(vocabulary) + 2, dtype=torch.int64)
    table[torch.tensor(sorted(vocabulary)) + 1] = torch.arange(len(vocabulary))
    return table[raw + 1]


def load_public_module(
    state: Mapping[str, Tensor], *, heads: int = 2, latest: int = 10, length: int = 100, window_ms: int = 3_600_000
) -> TransAct:
    """Our module with the weights of the public one; defaults are those of its config.

    Sizes follow from the weights, except these.

    Args:
        heads: its `nhead`.
        latest: its `latest_n_emb`.
        length: its `seq_len`.
        window_ms: its `time_window_ms`.

    Raises:
        UserError: weights that are not of that module.
    """
    weights = {_renamed(name): value for name, value in state.items() if name != IGNORED}
    if "action.weight" not in weights or "encoder.0.linear1.weight" not in weights:
        raise UserError(
            f"these are no weights of the public TransAct module: {', '.join(sorted(state)[:5])} …",
            "give the state dict of its class TransAct",
        )
    ffn, width = weights["encoder.0.linear1.weight"].shape
    rows, action_dim = weights["action.weight"].shape
    vector_dim = (width - action_dim) // 2
    config = TransActConfig(
        action_dim=action_dim,
        layers=1 + max(int(n.split(".")[1]) for n in weights if n.startswith("encoder.")),
        attention_heads=heads,
        ffn=ffn,
        first_k=latest,
        readout="first_k_max_pool" if "readout.linear.weight" in weights else "first_k",
        time_window_hours=window_ms / 3_600_000,
        public_module=True,
    )
    module = TransAct(config, actions=rows - 1, positive=(), vector_dim=vector_dim, length=length)
    columns = {"readout.columns": module.readout.columns} if module.readout.columns is not None else {}
    module.load_state_dict({**weights, **columns})
    return module


def _renamed(name: str) -> str:
    for theirs, ours in RENAMED.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
