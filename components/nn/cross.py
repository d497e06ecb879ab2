"""Full-rank cross network of DCN v2."""

from __future__ import annotations

from torch import Tensor, nn

from components.nn.linear import Linear


class CrossNetwork(nn.Module):
    """x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l with full-rank W_l (DCN v2; TransAct's feature crossing)."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(dim, dim) for _ in range(layers))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=dim**-1)
            nn.init.zeros_(layer.bias)

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, D] → [B, D]."""
        crossed = x_BD
        for layer in self.layers:
            crossed = x_BD * layer(crossed) + crossed
        return crossed
