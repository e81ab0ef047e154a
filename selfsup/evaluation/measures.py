"""What a batch of embeddings says about itself, without labels: has it collapsed, onto how much, and why.

Axes: B embeddings, D width.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

COLLAPSED = 0.02  # deviation; freshly initialised networks have 0.1 and more
NARROW = 0.02  # part of the directions; freshly initialised networks use 0.04 and more


@torch.no_grad()
def rankme(z: Float[Tensor, "B D"]) -> float:
    """Effective rank: exp of the entropy of the normalised singular values, 1 to min(B, D); NaN where z is not finite.

    Garrido, Balestriero, Najman and LeCun, ICML 2023, equation 3, with its epsilon of 1e-7. https://arxiv.org/abs/2210.02885
    """
    if not bool(z.isfinite().all()):
        return math.nan
    z = z.double()
    # Roots of the smaller Gram matrix's eigenvalues: ten times as fast as an SVD, exact to 1e-8 of the largest in float64.
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    p = singular / singular.sum().clamp(min=1e-300) + 1e-7
    return float((-(p * p.log()).sum()).exp())


@torch.no_grad()
def deviation(z: Float[Tensor, "B D"]) -> float:
    """Mean standard deviation of a dimension of normalised embeddings, times sqrt(D): 1 when they fill the sphere, 0 when all agree.

    Chen and He, CVPR 2021, section 4.1. https://arxiv.org/abs/2011.10566
    """
    return float(F.normalize(z.double(), dim=1).std(dim=0, unbiased=False).mean() * math.sqrt(z.shape[1]))


@torch.no_grad()
def alignment(z1: Float[Tensor, "B D"], z2: Float[Tensor, "B D"]) -> float:
    """Mean squared distance between the two normalised views of an image, 0 (same place) to 4 (opposite); alpha = 2.

    Wang and Isola, ICML 2020, section 4.1. https://arxiv.org/abs/2005.10242
    """
    return float((F.normalize(z1.double(), dim=1) - F.normalize(z2.double(), dim=1)).square().sum(dim=1).mean())


@torch.no_grad()
def uniformity(z: Float[Tensor, "B D"]) -> float:
    """Log of the mean over pairs of rows of exp(-2 squared distance) on the sphere: 0 when all agree, near -4 when spread out; t = 2.

    Wang and Isola, ICML 2020, section 4.1. https://arxiv.org/abs/2005.10242

    Raises:
        ValueError: fewer than two rows, so that there is no pair.
    """
    if len(z) < 2:
        raise ValueError(f"uniformity needs at least 2 embeddings for a pair, got {len(z)}")
    z = F.normalize(z.double(), dim=1)
    exponent = 4 * (z @ z.T) - 4  # -2 |a - b|^2 = 4 a.b - 4 on the sphere
    off_diagonal = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    return float(exponent[off_diagonal].logsumexp(dim=0) - math.log(len(z) * (len(z) - 1)))


def collapse_warning(rankme: float, deviation: float, width: int, *, rows: int | None = None) -> str | None:
    """What is wrong with embeddings of these measures, and the likely cause, in plain words; None if nothing is.

    Args:
        rankme, deviation: as measured here, of vectors of length `width`.
        rows: how many embeddings were measured, as their rank cannot be larger; None for no fewer than `width`.
    """
    if not (math.isfinite(rankme) and math.isfinite(deviation)):
        return "the embeddings hold NaN or infinity: training has diverged; go back to an earlier checkpoint and lower the learning rate"
    if deviation < COLLAPSED:
        return (
            f"complete collapse: all inputs get nearly the same embedding (deviation {deviation:.3f}, 1 is healthy). Likely cause: nothing "
            "keeps embeddings apart, such as negatives, a stopped gradient or a slow teacher; or the learning rate is too high"
        )
    largest = width if rows is None else min(width, rows)
    if rankme < 1 + NARROW * (largest - 1):
        return (
            f"dimensional collapse: embeddings use about {rankme:.1f} of {largest} directions. Likely cause: a shortcut solves the task, "
            "as when views are too alike or show the same colours; or weight decay or temperature is too high"
        )
    return None
