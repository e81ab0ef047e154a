"""What a batch of embeddings says about itself, without labels: has it collapsed, onto how much, and why.

Axes: B embeddings, D width.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from selfsup.losses import log_partition


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
def alpha_req(z: Float[Tensor, "B D"]) -> float:
    """Exponent alpha of the power law lambda_j ~ j^-alpha of the covariance's eigenvalues; near 1 is best, NaN where z has no spread.

    Agrawal, Mondal, Ghosh and Richards, NeurIPS 2022, section 3. The line is fitted through (log j, log lambda_j) from the 4th to the 70th
    per cent of the eigenvalues that are not zero: the first few and the last are no part of the law.
    """
    if len(z) < 2 or not bool(z.isfinite().all()):
        return math.nan
    z = z.double() - z.double().mean(dim=0)
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
    eigenvalues = torch.linalg.eigvalsh(gram).flip(0) / len(z)
    eigenvalues = eigenvalues[eigenvalues > 1e-10 * eigenvalues[0].clamp(min=1e-300)]
    first, last = round(0.04 * len(eigenvalues)), max(round(0.7 * len(eigenvalues)), 2)
    y = eigenvalues[first:last].log()
    x = torch.arange(first + 1, first + 1 + len(y), dtype=torch.float64, device=z.device).log()
    if len(y) < 2:
        return math.nan
    x = x - x.mean()
    return float(-(x * y).sum() / x.square().sum())


@torch.no_grad()
def lidar(z: Float[Tensor, "n q D"]) -> float:
    """Effective rank of what tells items apart beyond what their views do: 1 to min(n - 1, D); NaN where z is not finite.

    Thilak et al., ICLR 2024, section 4 (https://arxiv.org/abs/2312.04000): linear discriminant analysis with each item as a class; the
    entropy of the eigenvalues of Sigma_w^-1/2 Sigma_b Sigma_w^-1/2, with delta = 1e-4 on the diagonal of Sigma_w.

    Args:
        z: vectors of q views of each of n items, at least 2 of each.

    Raises:
        ValueError: fewer than 2 items or views.
    """
    n, q, width = z.shape
    if n < 2 or q < 2:
        raise ValueError(f"lidar needs at least 2 items and 2 views of each, got {n} and {q}")
    if not bool(z.isfinite().all()):
        return math.nan
    z = z.double()
    means = z.mean(dim=1)
    between = means - means.mean(dim=0)
    within = (z - means[:, None]).flatten(0, 1)
    sigma_b = between.T @ between / (n - 1)
    sigma_w = within.T @ within / (n * (q - 1)) + 1e-4 * torch.eye(width, dtype=z.dtype, device=z.device)
    values, vectors = torch.linalg.eigh(sigma_w)
    whiten = vectors * values.rsqrt()
    eigenvalues = torch.linalg.eigvalsh(whiten.T @ sigma_b @ whiten).clamp(min=0)
    p = eigenvalues / eigenvalues.sum().clamp(min=1e-300) + 1e-7
    return float((-(p * p.log()).sum()).exp())


def spearman(a: Any, b: Any) -> float:
    """Rank correlation of paired figures, -1 to 1, equal values sharing their mean rank; NaN where one never changes or holds a NaN.

    Args:
        a, b: (N,) figures, in a sequence, array or tensor.

    Raises:
        ValueError: not the same number of both, or fewer than two.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"a rank correlation needs two figures or more, as many of both; got {len(a)} and {len(b)}")
    x, y = (_ranks(torch.as_tensor(v, dtype=torch.float64, device="cpu")) for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    spread = float((x.square().sum() * y.square().sum()).sqrt())
    return float((x * y).sum()) / spread if spread > 0 else math.nan


def _ranks(values: Tensor) -> Tensor:
    if bool(values.isnan().any()):
        return values * math.nan
    _, place, equal = values.unique(return_inverse=True, return_counts=True)
    return (equal.cumsum(dim=0) - (equal - 1) / 2)[place]


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
def match(z1: Float[Tensor, "B D"], z2: Float[Tensor, "B D"]) -> float:
    """Share of images whose other view is nearest to theirs among all B, by cosine: 1 where nothing is lost, 1 / B by chance."""
    nearest = (F.normalize(z1.double(), dim=1) @ F.normalize(z2.double(), dim=1).T).argmax(dim=1)
    return float((nearest == torch.arange(len(z1), device=z1.device)).double().mean())


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
    own = torch.arange(len(z), device=z.device)[:, None]
    sums = log_partition(4 * z, z, own) - 4  # -2 |a - b|^2 = 4 a.b - 4 on the sphere; tile by tile, so there may be very many rows
    return float(sums.logsumexp(dim=0) - math.log(len(z) * (len(z) - 1)))
