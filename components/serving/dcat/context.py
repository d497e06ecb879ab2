"""The two passes of DCAT: a context once per unique user, then its candidates.

Shapes: U users, L positions oldest first, padding behind; B candidates grouped by user, S tokens of each; D width,
H heads, E = D / H.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from components.nn.decoder import CausalDecoder
from components.nn.decoder_layer import DecoderLayer
from components.nn.hstu import HSTULayer
from components.serving.dcat.attention import Seen, crossing_attention
from components.serving.dcat.groups import offsets
from components.serving.dcat.pointwise import pointwise_crossing

SLOTS = 256
"""Keys that a candidate sees, its own included, where their number is fixed (the paper's choice)."""


@dataclass(frozen=True)
class Context:
    """What candidates need of their users' histories.

    Attributes:
        keys, values: of each layer, [U, H, L, E]; what lies behind a user's length means nothing.
        lengths: tokens of each user.
        state_ULD: the decoder's output for the histories themselves, if it was asked for.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    lengths: tuple[int, ...]
    state_ULD: Tensor | None = None

    def __len__(self) -> int:
        """Number of users."""
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (*self.keys, *self.values, *self._states))

    @property
    def _states(self) -> tuple[Tensor, ...]:
        return () if self.state_ULD is None else (self.state_ULD,)

    def states_alone(self) -> Context:
        """Without keys and values: all that is needed where no candidate looks at the history itself."""
        return Context((), (), self.lengths, self.state_ULD)

    def user(self, u: int) -> Context:
        """One user's alone, in memory of its own."""
        length = self.lengths[u]
        keys, values = (tuple(t[u : u + 1, :, :length].clone() for t in of) for of in (self.keys, self.values))
        state = None if self.state_ULD is None else self.state_ULD[u : u + 1, :length].clone()
        return Context(keys, values, (length,), state)

    @classmethod
    def join(cls, contexts: Sequence[Context]) -> Context:
        """Several contexts as one; all of them have states, or none has."""
        if len(contexts) == 1:
            return contexts[0]
        keys, values, states = (
            tuple(_joined(same) for same in zip(*of, strict=True))
            for of in ([c.keys for c in contexts], [c.values for c in contexts], [c._states for c in contexts])
        )
        lengths = tuple(length for c in contexts for length in c.lengths)
        return cls(keys, values, lengths, states[0] if states else None)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Users of several tensors [U, …, L, E] under one another, padded to the longest L."""
    longest = max(t.shape[-2] for t in parts)
    return torch.cat([F.pad(t, (0, 0, 0, longest - t.shape[-2])) for t in parts])


def encode_context(
    decoder: CausalDecoder, x_ULD: Tensor, length_U: Tensor | None = None, *, states: bool = False
) -> Context:
    """Run each unique user's history once (Eq. 3).

    The last layer's attention and FFN serve nobody but the history itself: they are left out unless its `states` are
    asked for. Differentiable.

    Args:
        x_ULD: tokens, oldest first, padding behind.
        length_U: int64 tokens of each user (default: all L).
    """
    users, length = x_ULD.shape[:2]
    if length_U is None:
        length_U = torch.full((users,), length, device=x_ULD.device)
    place = torch.arange(length, device=x_ULD.device)
    x = decoder.enter(x_ULD, place)
    # Rotary attention sees distances only: with the origin behind the history, a candidate's first token needs none.
    rotation = decoder.rotation(place - length_U[:, None])
    keys, values = [], []
    for layer in decoder.layers[: None if states else -1]:
        q, *kv, gate = layer.project(x, rotation)
        k, v = (t.transpose(1, 2).contiguous() for t in kv)
        x = layer.finish(x, layer.attend(q, k.transpose(1, 2), v.transpose(1, 2)), gate)
        keys.append(k)
        values.append(v)
    if not states:
        k, v = (t.transpose(1, 2).contiguous() for t in decoder.layers[-1].project_context(x, rotation))
        keys.append(k)
        values.append(v)
    return Context(tuple(keys), tuple(values), tuple(length_U.tolist()), decoder.norm(x) if states else None)


def cross(
    decoder: CausalDecoder, context: Context, x_BSD: Tensor, row_of_B: Tensor, *, slots: int | None = None
) -> Tensor:
    """States [B, D] of the candidates' last tokens, as if each stood behind its own copy of its user's history.

    Differentiable, in the context too. With `slots`, a user's keys are at most so many: candidates' S take the place
    of the oldest ones, and keep the positions that they would have without.

    Args:
        x_BSD: each candidate's tokens, causal among themselves; the last one is read.
        row_of_B: int64 user of each candidate, not decreasing.

    Raises:
        ValueError: candidates are not grouped, or have more tokens than there are slots.
    """
    tokens = x_BSD.shape[1]
    if slots is not None and tokens > slots:
        raise ValueError(f"{tokens} tokens of a candidate do not fit into {slots} slots")
    start = tuple(max(0, length + tokens - (slots or length + tokens)) for length in context.lengths)
    seen = Seen(tuple(offsets(row_of_B, len(context))), start, context.lengths)
    place = torch.arange(tokens, device=x_BSD.device)
    x = decoder.enter(x_BSD, _learned_place(decoder, context, row_of_B, place))
    rotation = decoder.rotation(place) if tokens > 1 else None
    for layer, keys, values in zip(decoder.layers, context.keys, context.values, strict=True):
        projected = layer.project(x, rotation)
        if layer is decoder.layers[-1]:
            projected, x = projected.asked_by_last(), x[:, -1:]
        q, k, v, gate = projected
        x = layer.finish(x, _crossing(layer)(q, k, v, keys, values, seen), gate)
    out: Tensor = decoder.norm(x[:, -1])
    return out


def _crossing(layer: DecoderLayer) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Seen], Tensor]:
    """Candidates over their user's keys and values and their own, by the layer's kind of attention."""
    return partial(pointwise_crossing, bias_N=layer.bias) if isinstance(layer, HSTULayer) else crossing_attention


def _learned_place(decoder: CausalDecoder, context: Context, row_of_B: Tensor, place_S: Tensor) -> Tensor:
    if decoder.position is None:
        return place_S
    return torch.tensor(context.lengths, device=row_of_B.device)[row_of_B][:, None] + place_S
