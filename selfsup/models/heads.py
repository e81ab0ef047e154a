"""Small networks that stand on an encoder while it trains, and are thrown away afterwards."""

import itertools

import torch
from torch import nn


def mlp(*sizes: int, norm: bool = True, last_norm: bool = False, centred: bool = False) -> nn.Sequential:
    """Linear layers with ReLU between them: `mlp(512, 2048, 128)` maps (B, 512) through (B, 2048) to (B, 128).

    Args:
        sizes: widths from the input to the output, two or more; two make a linear layer.
        norm: batch normalisation before each ReLU; the linear layer before it then needs no bias.
        last_norm: batch normalisation of the output as well, without scale and shift, as SimCLR's code and SimSiam have it.
        centred: the rows of the last layer's matrix begin with a sum of zero. Normalised units all have the same mean after their ReLU,
            and a matrix at random makes of it a vector that all outputs share, so that they begin almost parallel.

    Raises:
        ValueError: fewer than two sizes, or one that is not positive.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"mlp needs at least 2 widths, all of them positive, got {sizes}")
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(before, after, bias=not norm)]
        layers += [nn.BatchNorm1d(after)] if norm else []
        layers += [nn.ReLU(inplace=True)]
    last = nn.Linear(sizes[-2], sizes[-1], bias=not last_norm)
    if centred:
        with torch.no_grad():
            last.weight -= last.weight.mean(dim=1, keepdim=True)
    layers.append(last)
    if last_norm:
        layers.append(nn.BatchNorm1d(sizes[-1], affine=False))
    return nn.Sequential(*layers)
