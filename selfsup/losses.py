"""Noise contrast: which of many candidates belongs here? Plain functions that every paper and modality can share.

A similarity of B views with B others is a (B, B) matrix, but no loss here ever holds one: `log_partition` goes through it tile by tile,
forward and backward, so that memory is O(B D + tile) and gradients are exact. Candidates come from all processes. What one paper alone
brought lives in that paper's file.

Axes: B queries of this process, M candidates of all processes, K negatives, D dimensions.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfsup.distributed import gather, rank, world_size

ROWS, COLUMNS = 256, 1024
"""Sides of a tile of similarities: 1 MiB in float32, which stays in a core's cache (measured)."""


def full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compute a loss in float32 (or float64) also where the networks run in bfloat16.

    Similarities divided by a temperature go into an exponential: bfloat16's eight bits would be the largest error of the whole step.
    """

    @functools.wraps(loss)
    def computed(*args: Any, **settings: Any) -> Tensor:
        device = next(a.device.type for a in (*args, *settings.values()) if isinstance(a, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*(wide(a) for a in args), **{name: wide(value) for name, value in settings.items()})

    return computed


def wide(a: Any) -> Any:
    """float32 of bfloat16 and float16; anything else as it is."""
    return a.float() if isinstance(a, Tensor) and a.dtype in (torch.bfloat16, torch.float16) else a


@full_precision
def nce(
    data: Float[Tensor, " B"],
    noise: Float[Tensor, "B k"],
    data_chance: Float[Tensor, " B"],
    noise_chance: Float[Tensor, "B k"],
) -> Float[Tensor, ""]:
    """Noise-contrastive estimation: is y from the data or one of k draws from the noise? Two classes, logistic.

    Gutmann and Hyvarinen, AISTATS 2010, equation 3; with k draws and a context x: Mnih and Teh 2012, equations 8 and 9
    (https://arxiv.org/abs/1206.6426).

    Args:
        data: log p(y | x) of each true y; unnormalised, where the model learns to normalise itself.
        noise: the same of its k draws.
        data_chance, noise_chance: log Pn(y) of the same, what the noise gives them.

    Returns:
        Mean over the B of -log P(D=1 | x, y) - sum over the k of log P(D=0 | x, y'), in nats; 2 log 2 at k = 1 where nothing can be told.
    """
    if data.ndim != 1 or noise.ndim != 2 or data.shape != data_chance.shape or noise.shape != noise_chance.shape or not noise.numel():
        shapes = ", ".join(str(tuple(x.shape)) for x in (data, noise, data_chance, noise_chance))
        raise ValueError(f"nce expects data (B,), noise (B, k), k at least 1, and a noise's log probability of each of them, got {shapes}")
    k = noise.shape[1]
    true = F.logsigmoid(_log_odds(data, data_chance, k))
    false = F.logsigmoid(-_log_odds(noise, noise_chance, k)).sum(dim=1)
    return -(true + false).mean()


def nce_posterior(model: Float[Tensor, "*any"], chance: Float[Tensor, "*any"], k: int) -> Float[Tensor, "*any"]:
    """P(D=1 | x, y) = p(y | x) / (p(y | x) + k Pn(y)), the chance that y is from the data, given log p and log Pn."""
    return _log_odds(model, chance, k).sigmoid()


def _log_odds(model: Tensor, chance: Tensor, k: int) -> Tensor:
    return model - chance - math.log(k)


@full_precision
def info_nce(
    queries: Float[Tensor, "B D"],
    keys: Float[Tensor, "B D"],
    temperature: float,
    negatives: Float[Tensor, "K D"] | None = None,
) -> Float[Tensor, ""]:
    """InfoNCE: which of N candidates is the positive? Row i of `keys` is that of row i of `queries`. Scores are inner products.

    Oord, Li and Vinyals 2018, equation 4. https://arxiv.org/abs/1807.03748

    Args:
        queries, keys: unit vectors for a cosine; W c and z for CPC's bilinear score.
        temperature: divides the scores.
        negatives: candidates beside the one positive, K of them; None for the keys of all other rows, of all processes.

    Returns:
        Mean over the queries, in nats; log N when every candidate is the same. N is K + 1, or the number of keys of all processes.
    """
    if queries.ndim != 2 or queries.shape != keys.shape or (negatives is not None and negatives.shape[1:] != keys.shape[1:]):
        beside = "" if negatives is None else f", negatives {tuple(negatives.shape)}"
        raise ValueError(
            f"info_nce expects queries and keys (B, D), and negatives (K, D), got {tuple(queries.shape)}, {tuple(keys.shape)}{beside}"
        )
    queries = queries / temperature
    positive = (queries * keys).sum(dim=1)
    if negatives is None:
        return (log_partition(queries, gather(keys)) - positive).mean()
    return (torch.logaddexp(log_partition(queries, negatives), positive) - positive).mean()


def mutual_information(loss: Tensor, candidates: int) -> Tensor:
    """log N - loss, in nats: a lower bound of what query and key know of each other, never above log N (1807.03748, section 2.3)."""
    if candidates < 1:
        raise ValueError(f"a partner is found among at least 1 candidate, got {candidates}")
    return math.log(candidates) - loss.detach()


def nt_xent(first: Float[Tensor, "B D"], second: Float[Tensor, "B D"], temperature: float) -> Float[Tensor, ""]:
    """Normalised temperature-scaled cross entropy (SimCLR, 2002.05709, equation 1); row i of each is image i.

    Returns:
        Mean over the 2B views, in nats; log(2B - 1) when every projection is the same.

    Raises:
        ValueError: fewer than two images, so that no view has a negative.
    """
    return poly_view(torch.stack([first, second]), temperature)


@full_precision
def poly_view(z: Float[Tensor, "V B D"], temperature: float) -> Float[Tensor, ""]:
    """NT-Xent for any number of views of an image: each of the others is a positive of its own, beside the views of all other images.

    Shidani and others, ICLR 2024, the arithmetic mean of section 3.3. https://arxiv.org/abs/2403.05490

    Args:
        z: V views of each image, 2 or more; they are normalised here.
        temperature: tau, no unit.

    Returns:
        Mean over the V (V - 1) B pairs, in nats; log(V (B - 1) + 1) when every projection is the same.

    Raises:
        ValueError: fewer than two images or views.
    """
    views, images, _ = z.shape
    if views < 2 or images * world_size() < 2:
        raise ValueError(f"a contrast needs at least 2 images for negatives and 2 views of each, got {images} images and {views} views")
    z = F.normalize(z, dim=2)
    flat = z.flatten(0, 1)
    keys, own = _candidates(flat)
    together = own.view(views, images).T.repeat(views, 1)  # of each view, all views of its image, itself included: (V B, V)
    negatives = log_partition(flat / temperature, keys, together).view(views, images)
    positives = torch.einsum("vbd,wbd->vwb", z, z) / temperature
    loss = torch.logaddexp(negatives[:, None], positives) - positives
    return (loss.sum() - loss.diagonal().sum()) / (views * (views - 1) * images)


@full_precision
def supcon(z: Float[Tensor, "B D"], group: Int[Tensor, " B"], temperature: float) -> Float[Tensor, ""]:
    """Supervised contrast: all views of one group are each other's positives (2004.11362, equation 2, the sum outside the logarithm).

    Args:
        z: views; they are normalised here.
        group: equal for views that belong together, over all processes; with two views an image and no labels this is `nt_xent`.
        temperature: tau, no unit.

    Returns:
        Mean over the views, in nats.

    Raises:
        ValueError: a view is alone in its group, so that it has no positive.
    """
    if z.ndim != 2 or group.shape != z.shape[:1]:
        raise ValueError(f"supcon expects z (B, D) and a group for each row, (B,), got {tuple(z.shape)} and {tuple(group.shape)}")
    z = F.normalize(z, dim=1)
    queries = z / temperature
    keys, own = _candidates(z)
    names, place = gather(group).unique(return_inverse=True)
    partners = place.bincount()[place[own]] - 1
    if bool((partners < 1).any()):
        raise ValueError(f"supcon needs at least 2 views of each group, but group {int(group[partners < 1][0])} has one")
    # The mean over partners of q . k is q . (sum of their k): no matrix of pairs.
    sums = torch.zeros(len(names), z.shape[1], dtype=z.dtype, device=z.device).index_add(0, place, keys)
    positive = (queries * (sums[place[own]] - z)).sum(dim=1) / partners
    return (log_partition(queries, keys, own[:, None]) - positive).mean()


def _candidates(z: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "M D"], Int[Tensor, " B"]]:
    """All processes' rows, with gradient, and where mine are among them."""
    return gather(z), torch.arange(len(z), device=z.device) + rank() * len(z)


def log_partition(
    queries: Float[Tensor, "B D"],
    keys: Float[Tensor, "M D"],
    left_out: Int[Tensor, "B n"] | None = None,
    *,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> Float[Tensor, " B"]:
    """log sum_j exp(q_i . k_j) of each query, the logarithm of the softmax's denominator.

    Args:
        queries: already divided by the temperature.
        keys: the candidates.
        left_out: for each query the numbers of the keys that are not its candidates, such as the query itself; None for none.
        rows, columns: sides of the tile that is in memory at a time.
    """
    return _LogPartition.apply(queries, keys, left_out, rows, columns)


class _LogPartition(torch.autograd.Function):
    """The backward pass makes the tiles again: one more product, and nothing of size (B, M) kept."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, left_out: Tensor | None, rows: int, columns: int) -> Tensor:
        total = torch.full_like(queries[:, 0], -math.inf)
        for i, _, tile in _tiles(queries, keys, left_out, rows, columns):
            total[i] = torch.logaddexp(total[i], tile.logsumexp(dim=1))
        ctx.save_for_backward(queries, keys, left_out, total)
        ctx.sides = rows, columns
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # type: ignore[override]
        queries, keys, left_out, total = ctx.saved_tensors
        to_queries, to_keys = torch.zeros_like(queries), torch.zeros_like(keys)
        for i, j, tile in _tiles(queries, keys, left_out, *ctx.sides):
            share = tile.sub_(total[i, None]).exp_().mul_(grad[i, None])  # softmax of each row, times what arrives there
            if ctx.needs_input_grad[0]:
                to_queries[i].addmm_(share, keys[j])
            if ctx.needs_input_grad[1]:
                to_keys[j].addmm_(share.T, queries[i])
        return to_queries, to_keys, None, None, None


def _tiles(queries: Tensor, keys: Tensor, left_out: Tensor | None, rows: int, columns: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Scores of some queries with some keys, in a buffer that the next tile takes over."""
    buffer = torch.empty(min(rows, len(queries)) * min(columns, len(keys)), dtype=queries.dtype, device=queries.device)
    for first in range(0, len(queries), rows):
        i = slice(first, min(first + rows, len(queries)))
        for start in range(0, len(keys), columns):
            j = slice(start, min(start + columns, len(keys)))
            shape = (i.stop - i.start, j.stop - j.start)
            tile = torch.mm(queries[i], keys[j].T, out=buffer[: shape[0] * shape[1]].view(shape))
            if left_out is not None:
                at = left_out[i] - j.start
                row, which = ((at >= 0) & (at < shape[1])).nonzero(as_tuple=True)
                tile[row, at[row, which]] = -math.inf
            yield i, j, tile
