"""A flat map of embeddings for people to look at: neighbours in the full space are neighbours on the map.

t-SNE (van der Maaten and Hinton, JMLR 2008, https://jmlr.org/papers/v9/vandermaaten08a.html) started from the two leading principal
components (Kobak and Berens, Nature Communications 2019, https://doi.org/10.1038/s41467-019-13056-x), so that far parts of the map mean
something too and the same embeddings give the same map.

Axes: M embeddings, D width, k neighbours.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from selfsup.evaluation.knn import neighbours

LARGEST = 5_000  # points; the cost is quadratic, 2,000 take about 4 s on one core
PERPLEXITY = 30.0
BLOCK = 2**18  # numbers of the repulsion's kernel at a time, which stay in the cache while they are worked on


@torch.no_grad()
def project(z: Float[Tensor, "M D"], *, iterations: int = 250, exaggerated: int = 100) -> Float[Tensor, "M 2"]:
    """Two coordinates for each embedding, by their cosine similarities; deterministic.

    Args:
        z: up to 5,000 embeddings.
        iterations: gradient steps; the first `exaggerated` of them pull 12 times as hard, to bring clusters together.
    Returns:
        Centred float32 coordinates of no particular unit.
    Raises:
        ValueError: more than 5,000 embeddings, or some are not finite.
    """
    if len(z) > LARGEST:
        raise ValueError(f"the map takes at most {LARGEST} embeddings, got {len(z)}; pass a random subset")
    if not bool(z.isfinite().all()):
        raise ValueError("the map needs finite embeddings, got NaN or infinity; the network that made them has diverged")
    y = _principal_plane(z)
    if len(z) < 4:  # nothing to arrange
        return y
    near, p = _affinities(z)
    y = 1e-4 * y / y[:, 0].std().clamp(min=1e-12)
    velocity, gain = torch.zeros_like(y), torch.ones_like(y)
    for step in range(iterations):
        early = step < exaggerated
        exaggeration, momentum = (12.0, 0.5) if early else (1.0, 0.8)
        gradient = _gradient(y, near, p * exaggeration)
        # Van der Maaten's gains: faster along directions that keep their sign.
        gain = torch.where(gradient.sign() == velocity.sign(), gain * 0.8, gain + 0.2).clamp(min=0.01)
        velocity = momentum * velocity - (len(z) / 12.0 if early else max(len(z) / 4.0, 50.0)) * gain * gradient
        y = y + velocity
    return y - y.mean(dim=0)


def _principal_plane(z: Tensor) -> Tensor:
    """(M, 2) leading principal components of normalised embeddings, the largest loading of each positive; zeros where there is none."""
    x = F.normalize(z.float(), dim=1)
    x = x - x.mean(dim=0)
    _, _, v = torch.linalg.svd(x.double() if len(x) < 64 else x, full_matrices=False)
    v = v[:2].float()
    v = v * v.gather(1, v.abs().argmax(dim=1, keepdim=True)).sign()
    return F.pad(x @ v.T, (0, 2 - len(v)))


def _affinities(z: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest neighbours (M, k) of each point, k = 3 * perplexity, and p_j|i / 2M of each; p_ij is the sum of both directions."""
    m = len(z)
    perplexity = min(PERPLEXITY, (m - 1) / 3)
    k = min(m - 1, int(3 * perplexity))
    similarity, index = neighbours(z, z, min(k + 1, m))
    own = index == torch.arange(m, device=z.device)[:, None]
    own[~own.any(dim=1), -1] = True  # among many equals it may have missed itself: drop the last instead
    similarity, index = similarity[~own].view(m, -1), index[~own].view(m, -1)
    distance = (2 - 2 * similarity).clamp(min=0).double()  # squared, on the sphere
    distance = distance - distance[:, :1]
    low, high = torch.full_like(distance[:, :1], 1e-8), torch.full_like(distance[:, :1], 1e8)
    target = torch.tensor(perplexity).double().log()
    p = torch.empty_like(distance)
    for _ in range(60):  # precision of each point's gaussian, by bisection on a log scale
        beta = (low * high).sqrt()
        p = (-beta * distance).softmax(dim=1)
        entropy = -(p * p.clamp(min=1e-300).log()).sum(dim=1, keepdim=True)
        low, high = torch.where(entropy > target, beta, low), torch.where(entropy > target, high, beta)
    return index, (p / (2 * m)).float()


def _gradient(y: Tensor, near: Tensor, p: Tensor) -> Tensor:
    """4 sum_j (p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|^2), without forming the differences of all pairs."""
    pull = [axis[:, None] - axis[near] for axis in y.T.contiguous()]
    weight = p / (1 + pull[0].square() + pull[1].square())
    pull = [weight * axis for axis in pull]
    ends = near.flatten()  # both ends of a pair are pulled
    attraction = torch.stack([axis.sum(dim=1) - ends.bincount(axis.flatten(), minlength=len(y)) for axis in pull], dim=1)

    square, all_and_one = y.square().sum(dim=1), F.pad(y, (0, 1), value=1.0)
    total, sums = torch.zeros((), device=y.device), []
    rows = max(1, BLOCK // len(y))
    for part, own in zip(y.split(rows), square.split(rows), strict=True):
        kernel = torch.addmm(square + 1, part, y.T, alpha=-2).add_(own[:, None])
        kernel = kernel.clamp_(min=1.0).reciprocal_()
        total += kernel.sum()
        sums.append(kernel.square_() @ all_and_one)
    kernel_y, kernel_1 = torch.cat(sums).split([2, 1], dim=1)
    repulsion = (kernel_1 * y - kernel_y) / (total - len(y))  # a point's own kernel is 1; it cancels above the fraction
    return 4 * (attraction - repulsion)
