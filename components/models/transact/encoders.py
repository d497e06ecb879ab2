"""What TransAct's Table 3 puts in the transformer's place. Each maps ([B, L, D], padding [B, L]) → [B, L', D]."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


class AverageEncoder(nn.Module):
    """The mean of the tokens that are not padding, as one position."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()

    def forward(self, x_BLD: Tensor, padding_BL: Tensor) -> Tensor:
        real = (~padding_BL)[..., None].to(x_BLD.dtype)
        return (x_BLD * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)


class ConvolutionEncoder(nn.Module):
    """Residual convolutions of width 3 over the positions."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(dim, dim, 3, padding=1) for _ in range(layers))

    def forward(self, x_BLD: Tensor, padding_BL: Tensor) -> Tensor:
        for layer in self.layers:
            x_BLD = x_BLD.masked_fill(padding_BL[..., None], 0.0)
            x_BLD = x_BLD + F.relu(layer(x_BLD.transpose(1, 2)).transpose(1, 2))
        return x_BLD


class RecurrentEncoder(nn.Module):
    """An RNN from the oldest action to the newest; state t stands at position t."""

    def __init__(self, dim: int, layers: int, kind: type[nn.RNN] | type[nn.LSTM]) -> None:
        super().__init__()
        self.rnn = kind(dim, dim, num_layers=layers, batch_first=True)

    def forward(self, x_BLD: Tensor, padding_BL: Tensor) -> Tensor:
        # Oldest first, the padding comes first: zeros into a zero state are as good as no steps, up to the biases.
        oldest_first = x_BLD.masked_fill(padding_BL[..., None], 0.0).flip(1)
        return self.rnn(oldest_first)[0].flip(1)


ENCODERS: dict[str, Callable[[int, int], nn.Module]] = {
    "average": AverageEncoder,
    "cnn": ConvolutionEncoder,
    "rnn": lambda dim, layers: RecurrentEncoder(dim, layers, nn.RNN),
    "lstm": lambda dim, layers: RecurrentEncoder(dim, layers, nn.LSTM),
}
