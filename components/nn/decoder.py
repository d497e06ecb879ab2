"""A causal decoder: pre-norm layers of one kind, a last norm; positions rotary, learned or left to the layers.

Shapes as in `decoder_layer`.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from components.nn.decoder_layer import DecoderConfig, DecoderLayer, Rotation
from components.nn.dropout import ByteDropout
from components.nn.gpt2 import GPT2Layer
from components.nn.hstu import HSTULayer

__all__ = ["CausalDecoder", "DecoderConfig"]

LAYERS: dict[str, type[DecoderLayer]] = {"gpt2": GPT2Layer, "hstu": HSTULayer}


class CausalDecoder(nn.Module):
    """Layers over tokens that others have embedded."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.position = nn.Embedding(config.max_length, config.dim) if config.position == "learned" else None
        self.dropout = ByteDropout(config.dropout)
        self.stack = nn.ModuleList(LAYERS[config.block](config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self._initialise()

    @property
    def layers(self) -> list[DecoderLayer]:
        return [cast(DecoderLayer, layer) for layer in self.stack]

    def forward(self, x_ULD: Tensor, length_U: Tensor | None = None) -> Tensor:
        """Each token's state given those before it. [U, L, D] → [U, L, D], L at most `max_length`.

        Tokens are oldest first and padding follows them, so that no token sees it. Given the number of tokens
        `length_U`, states of padding are zero; without it they mean nothing.
        """
        position = torch.arange(x_ULD.shape[1], device=x_ULD.device)
        x, rotation = self.enter(x_ULD, position), self.rotation(position)
        for layer in self.layers:
            x = layer(x, rotation)
        x = self.norm(x)
        return x if length_U is None else x.masked_fill((position >= length_U[:, None])[..., None], 0.0)

    def enter(self, x: Tensor, position: Tensor) -> Tensor:
        """Input of the first layer: tokens [..., D], at int64 positions that broadcast to [...]."""
        if self.position is not None:
            x = x + self.position(position)
        out: Tensor = self.dropout(x)
        return out

    def rotation(self, position: Tensor) -> Rotation:
        """The rotation of queries and keys at int64 positions [...], in float32 whatever the weights are."""
        if self.config.position != "rotary":
            return None
        half = self.config.dim // self.config.heads // 2
        rate = torch.exp(torch.arange(half, device=position.device) * (-math.log(10_000.0) / half))
        angle = position[..., None, None] * rate
        return angle.cos(), angle.sin()

    def _initialise(self) -> None:
        """GPT-2's: N(0, 0.02), and less for what adds to the residual stream, so that depth does not widen it."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for layer in self.layers:
            for adds in layer.adds:
                nn.init.normal_(adds.weight, std=0.02 / math.sqrt(2 * self.config.layers))
