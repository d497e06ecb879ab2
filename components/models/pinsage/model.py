"""PinSage: convolutions over neighbourhoods found by random walks (Ying et al. 2018, Algorithms 1 and 2).

Shapes: N items of the catalogue, V nodes of a sub-graph of which the first R are roots, T neighbours, F content
features, C categorical columns, m hidden, d final.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.models.pinsage.config import PinSageConfig
from components.models.pinsage.subgraph import Subgraph
from components.nn.embedding import hash_rows


def pool(kind: str, message_Vm: Tensor, neighbour_UT: Tensor, weight_UT: Tensor) -> Tensor:
    """γ of Algorithm 1 over the neighbours of U nodes. [U, m]; zero for a node without neighbours.

    Args:
        message_Vm: what each node sends.
        neighbour_UT: int32, nodes; 0 = padding.
        weight_UT: float32, normalised visit counts; 0 where padded.
    """
    message_Vm = message_Vm.float()
    if kind == "max":
        return F.embedding_bag(neighbour_UT, message_Vm, mode="max", padding_idx=0)
    if kind == "mean":
        present = (neighbour_UT > 0).float()
        weight_UT = present / present.sum(1, keepdim=True).clamp(min=1)
    return F.embedding_bag(neighbour_UT, message_Vm, mode="sum", per_sample_weights=weight_UT, padding_idx=0)


class Convolve(nn.Module):
    """Algorithm 1. `project` is its line 1 for every sender once, `forward` the rest for every receiver."""

    def __init__(self, inputs: int, config: PinSageConfig) -> None:
        super().__init__()
        self.pooling, self.average = config.pooling, config.combine == "average"
        self.message = nn.Linear(inputs, config.hidden)
        # An average needs both sides in one space.
        self.own = nn.Linear(inputs, config.hidden) if self.average and inputs != config.hidden else nn.Identity()
        self.update = nn.Linear(config.hidden if self.average else inputs + config.hidden, config.hidden)

    def project(self, h_V: Tensor) -> Tensor:
        """ReLU(Q h + q). [V, inputs] → [V, m]."""
        return F.relu(self.message(h_V))

    def forward(self, h_U: Tensor, message_Vm: Tensor, neighbour_UT: Tensor, weight_UT: Tensor) -> Tensor:
        """New vectors of U nodes from theirs ([U, inputs]) and their neighbours' messages. [U, m], length 1."""
        pooled = pool(self.pooling, message_Vm, neighbour_UT, weight_UT)
        both = (self.own(h_U) + pooled) / 2 if self.average else torch.cat([h_U, pooled], dim=1)
        return F.normalize(F.relu(self.update(both)), dim=1)


class PinSage(nn.Module):
    """K convolutions and a dense head, on content: an item that training never saw, even without a board, has a vector.

    Args:
        content: F, numbers that describe an item (content vector, log of the number of boards).
        categories: C, categorical columns.
        items: N, only for `config.id_dim`.

    Buffers:
        centre_d, projection_dc: from vectors to the short ones; fixed when the model is exported.
    """

    centre_d: Tensor
    projection_dc: Tensor

    def __init__(self, config: PinSageConfig, content: int, categories: int, items: int = 0) -> None:
        super().__init__()
        self.config = config
        self.shapes = {"content": content, "categories": categories, "items": items}
        width = content
        self.category: nn.Embedding | None = None
        self.identity: nn.Embedding | None = None
        if config.category_dim and categories:
            self.category = nn.Embedding(categories * config.category_rows, config.category_dim)
            nn.init.normal_(self.category.weight, std=config.category_dim**-0.5)
            width += categories * config.category_dim
        if config.id_dim:
            self.identity = nn.Embedding(items, config.id_dim, padding_idx=0)
            nn.init.normal_(self.identity.weight, std=0.1 * config.id_dim**-0.5)
            width += config.id_dim
        widths = [width, *[config.hidden] * config.layers]
        self.layers = nn.ModuleList(Convolve(inputs, config) for inputs in widths[:-1])
        self.head = nn.Sequential(
            nn.Linear(config.hidden, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.dim, bias=False)
        )
        self.register_buffer("centre_d", torch.zeros(config.dim))
        kept = torch.arange(config.dim)[:, None] < config.trained_short
        self.register_buffer("projection_dc", torch.eye(config.dim, config.compact) * kept)

    def describe(self, content_VF: Tensor, category_VC: Tensor, row_V: Tensor) -> Tensor:
        """What is known of items without the graph: h⁰. [V, inputs of the first layer].

        Args:
            category_VC: int32 hashes, 0 = absent (no part in h⁰).
            row_V: int32 rows of the item table.
        """
        parts = [content_VF]
        if self.category is not None:
            rows = self.config.category_rows
            column = torch.arange(category_VC.shape[1], device=category_VC.device) * rows
            known = (category_VC > 0)[..., None]
            parts.append((self.category(hash_rows(category_VC, rows) + column) * known).flatten(1))
        if self.identity is not None:
            parts.append(self.identity(row_V))
        return torch.cat(parts, dim=1)

    def finish(self, h_R: Tensor) -> Tensor:
        """z = G₂ · ReLU(G₁ h + g), its length as `config.length` says. [R, m] → [R, d]."""
        z_Rd: Tensor = self.head(h_R)
        if self.config.length == "free":
            return z_Rd
        if self.config.length == "one":
            return F.normalize(z_Rd, dim=1)
        return torch.cat([F.normalize(z_Rd[:, :-1], dim=1), F.softplus(z_Rd[:, -1:])], dim=1)

    def forward(self, graph: Subgraph) -> Tensor:
        """Algorithm 2 on a re-indexed sub-graph: vectors of its roots. [R, d]."""
        h = self.describe(graph.content_VF, graph.category_VC, graph.row_V)
        for layer, receivers in zip(self.convolutions, graph.receivers, strict=True):
            neighbour, weight = graph.neighbour_UT[:receivers], graph.weight_UT[:receivers]
            h = layer(h[:receivers], layer.project(h), neighbour, weight)
        return self.finish(h)

    @property
    def convolutions(self) -> tuple[Convolve, ...]:
        return tuple(cast(Convolve, layer) for layer in self.layers)

    def compact(self, z_Vd: Tensor) -> Tensor:
        """Short vectors of length 1 (or 0). [V, d] → [V, compact]."""
        return F.normalize((z_Vd - self.centre_d) @ self.projection_dc, dim=1) * z_Vd.any(1, keepdim=True)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
