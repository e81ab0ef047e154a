"""Gated PixelCNN over a map of codes (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328, figure 2): each from those before it.

`PixelCNN` is trained. `ExactPixelCNN` is the same network in whole numbers: an entropy coder needs probabilities that do not depend on
how they were computed, and sums of floating-point numbers depend on their order. The idea is that of integer networks (Balle, Johnston
and Minnen, ICLR 2019, https://openreview.net/forum?id=S1zz2i0cY7), here applied after the training.

Axes: B maps, h and w sides of a map, K codes, P planes; `ExactPixelCNN` keeps planes last.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class GatedLayer(nn.Module):
    """Two stacks: `vertical` sees the rows above, `horizontal` what is on the left in the same row, and `link` tells it of the first.

    Args:
        planes: P of both stacks.
    """

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.vertical = nn.Conv2d(planes, 2 * planes, (2, 3))
        self.link = nn.Conv2d(2 * planes, 2 * planes, 1)
        self.horizontal = nn.Conv2d(planes, 2 * planes, (1, 2))
        self.out = nn.Conv2d(planes, planes, 1)

    def forward(self, v: Float[Tensor, "B P h w"], s: Float[Tensor, "B P h w"], *, first: bool) -> tuple[Tensor, Tensor]:
        """Both stacks one layer on; the first layer looks one row and one column further back, as it must not see the code itself."""
        seen = self.vertical(F.pad(v, (1, 1, 1 + first, 0))[:, :, : v.shape[2] + 1])
        left = self.horizontal(F.pad(s, (1 + first, 0))[..., : s.shape[3] + 1])
        out = self.out(_gate(left + self.link(seen)))
        return _gate(seen), out if first else s + out


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


class PixelCNN(nn.Module):
    """(B, h, w) codes -> (B, K, h, w) logits of each code given those above it and those on its left; maps may have any size.

    Args:
        codes: K.
        planes: P.
        layers: each lets a code see one more row above and one more column on the left and on the right of those rows.
    """

    def __init__(self, codes: int, planes: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, planes)
        self.layers = nn.ModuleList(GatedLayer(planes) for _ in range(layers))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(planes, planes, 1), nn.ReLU(), nn.Conv2d(planes, codes, 1))

    def forward(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B K h w"]:
        v = s = self.embedding(codes).permute(0, 3, 1, 2)
        for i, layer in enumerate(self.layers):
            v, s = layer(v, s, first=i == 0)
        return self.head(s)


UNIT = 2**12
"""What 1.0 of a weight or an activation is here; their products are in units of UNIT^2."""

LARGEST = 2**20
"""Of an activation, 256.0; weights are at most a quarter of it. Every sum then stays below 2^53, where float64 is exact in any order."""

GRID, REACH = 2**10, 8
"""Steps of the tables of tanh and sigmoid to 1.0, and the argument at which they end."""

LOGIT = 256
"""What 1.0 of a logit is."""


class ExactPixelCNN:
    """A trained `PixelCNN` in whole numbers, held as float64: the same logits, to the last bit, for all codes at once or one by one.

    Args:
        network: what is copied, rounded to 1 / UNIT.
    """

    def __init__(self, network: PixelCNN) -> None:
        self.embedding = _whole(network.embedding.weight)
        self.layers = [{name: _matrices(conv) for name, conv in layer.named_children()} for layer in network.layers]
        self.head = [_matrices(conv) for conv in network.head if isinstance(conv, nn.Conv2d)]
        middles = (torch.arange(-REACH * GRID, REACH * GRID, dtype=torch.float64) + 0.5) / GRID
        self.tanh, self.sigmoid = ((f(middles) * UNIT).round().to(self.embedding.device) for f in (torch.tanh, torch.sigmoid))

    @torch.no_grad()
    def logits(self, codes: Int[Tensor, "B h w"]) -> Int[Tensor, "B h w K"]:
        """In units of 1 / LOGIT, for all positions at once."""
        v = s = self.embedding[codes]
        for k in range(len(self.layers)):
            v, link = self._vertical(k, F.pad(v, (0, 0, 0, 0, 1 + (k == 0), 0))[:, : v.shape[1] + 1])
            s = self._horizontal(k, F.pad(s, (0, 0, 1 + (k == 0), 0))[:, :, : s.shape[2] + 1], link)
        return self._logits(s)

    @torch.no_grad()
    def walk(self, codes: Int[Tensor, "B h w"]) -> Iterator[tuple[int, int, Int[Tensor, "B K"]]]:
        """(i, j, logits) row by row; whoever asks for the next must have written `codes[:, i, j]`. Nothing is computed twice."""
        maps, height, width = codes.shape
        nothing = self.embedding.new_zeros(maps, 1, width, self.embedding.shape[1])
        v_above = [nothing] * len(self.layers)  # what went into each layer one row higher
        for i in range(height):
            v, links = self.embedding[codes[:, i - 1 : i]] if i else nothing, []
            for k in range(len(self.layers)):
                rows, v_above[k] = torch.cat([v_above[k], v], dim=1), v
                v, link = self._vertical(k, rows)
                links.append(link)
            s_left = [nothing[:, :, :1]] * len(self.layers)  # what went into each layer one column before
            for j in range(width):
                s = self.embedding[codes[:, i : i + 1, j - 1 : j]] if j else nothing[:, :, :1]
                for k in range(len(self.layers)):
                    columns, s_left[k] = torch.cat([s_left[k], s], dim=2), s
                    s = self._horizontal(k, columns, links[k][:, :, j : j + 1])
                yield i, j, self._logits(s)[:, 0, 0]

    def _vertical(self, k: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n + 1, w, P) -> what goes on upwards, (B, n, w, P), and what the horizontal stack is told, in units of UNIT^2."""
        seen = _convolve(F.pad(rows, (0, 0, 1, 1)), *self.layers[k]["vertical"])
        return self._gated(seen), _convolve(_settled(seen), *self.layers[k]["link"])

    def _horizontal(self, k: int, columns: Tensor, link: Tensor) -> Tensor:
        """(B, n, w + 1, P) and the link -> (B, n, w, P)."""
        gated = self._gated(_convolve(columns, *self.layers[k]["horizontal"]) + link)
        out = _settled(_convolve(gated, *self.layers[k]["out"]))
        return out if k == 0 else (columns[:, :, 1:] + out).clamp_(-LARGEST, LARGEST)

    def _gated(self, x: Tensor) -> Tensor:
        # Tables: a vectorised tanh may differ in its last bit with the place of a number in memory.
        step = (x / (UNIT * UNIT // GRID)).floor_().clamp_(-REACH * GRID, REACH * GRID - 1).long() + REACH * GRID
        a, b = step.chunk(2, dim=-1)
        return (self.tanh[a] * self.sigmoid[b] / UNIT).round_()

    def _logits(self, s: Tensor) -> Tensor:
        hidden = _settled(_convolve(s.clamp(min=0), *self.head[0])).clamp_(min=0)
        return (_convolve(hidden, *self.head[1]) / (UNIT * UNIT // LOGIT)).floor_().long()


def _convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, n, m, inputs) -> (B, n', m', outputs): the sums that a convolution without padding has, as one product of matrices."""
    high, wide, _, _ = weight.shape
    n, m = x.shape[1] - high + 1, x.shape[2] - wide + 1
    parts = [x[:, i : i + n, j : j + m] for i in range(high) for j in range(wide)]
    return torch.cat(parts, dim=-1) @ weight.flatten(0, 2) + bias


def _settled(x: Tensor) -> Tensor:
    """From units of UNIT^2 to units of UNIT."""
    return (x / UNIT).round_().clamp_(-LARGEST, LARGEST)


def _whole(x: Tensor) -> Tensor:
    return (x.detach().double() * UNIT).round().clamp(-LARGEST // 4, LARGEST // 4)


def _matrices(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (high, wide, inputs, outputs) and bias of a convolution, the bias in units of UNIT^2."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return _whole(conv.weight).permute(2, 3, 1, 0).contiguous(), (conv.bias.detach().double() * UNIT * UNIT).round()
