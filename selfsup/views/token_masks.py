"""Hiding tokens.

Axes: B rows, T tokens of a row, V tokens in the vocabulary.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from selfsup.views.sampling import uniform


class Masked(NamedTuple):
    """A text with holes.

    Attributes:
        shown: (B, T) what the network sees.
        hidden: (B, T) True where it has to say what was there.
    """

    shown: Tensor
    hidden: Tensor


def mask_tokens(
    ids: Int[Tensor, "B T"],
    generator: torch.Generator,
    *,
    fraction: float,
    mask: int,
    special: Bool[Tensor, " V"],
    continues: Bool[Tensor, " V"] | None = None,
) -> Masked:
    """Choose tokens to predict; of those, 80 % become MASK, 10 % any token, 10 % stay (1810.04805, section 3.1).

    Args:
        ids: token numbers.
        generator: source of the random numbers.
        fraction: probability of each token, or of each word, to be chosen.
        mask: number of MASK.
        special: tokens that are never chosen, and never put in.
        continues: tokens that go on with a word; given, words are chosen whole, each token of them then meets its own fate.
    """
    b, t = ids.shape
    unit = torch.arange(t, device=ids.device).expand(b, t)
    if continues is not None:
        unit = torch.where(continues[ids], 0, unit).cummax(dim=1).values  # every token takes the number of its word's first
    chosen = uniform(b, generator, 0.0, 1.0, t).to(ids.device).gather(1, unit) < fraction
    hidden = chosen & ~special[ids]
    fate = uniform(b, generator, 0.0, 1.0, t).to(ids.device)
    ordinary = (~special).nonzero()[:, 0]
    other = ordinary[(uniform(b, generator, 0.0, 1.0, t).to(ids.device) * len(ordinary)).long().clamp(max=len(ordinary) - 1)]
    shown = torch.where(hidden & (fate < 0.8), mask, ids)
    return Masked(torch.where(hidden & (fate >= 0.8) & (fate < 0.9), other, shown), hidden)
