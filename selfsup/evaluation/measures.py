"""What a batch of embeddings says about itself, without labels: has it collapsed, onto how much, and why.

Axes: B embeddings, D width.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


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
    """Mean over dimensions of the standard deviation of l2-normalised embeddings, times sqrt(D): 1 when they fill the sphere, 0 when all agree.

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
    """Log of the mean over pairs of different rows of exp(-2 squared distance) on the sphere: 0 when all agree, near -4 when spread out; t = 2.

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
