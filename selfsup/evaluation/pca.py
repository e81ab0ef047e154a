"""Principal components by randomised SVD: raw pixels, brought to the encoder's width, are the first thing that an encoder has to beat.

Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4. https://arxiv.org/abs/0909.4061

Axes: N rows, D columns, K components.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from selfsup.data import Items, sequential
from selfsup.data.tables.schema import column_statistics
from selfsup.views.crops import clean

FIT_ROWS = 10_000  # more rows do not move the leading components of images
PIXEL_SIDE = 64  # larger images are shown to the PCA at this side: their leading components are smooth, and 224 pixels need 6 GB


@dataclass(frozen=True)
class PCA:
    """An orthonormal projection of centred rows; `width` says how many components exist, which may be fewer than were asked for."""

    mean: Float[Tensor, " D"]
    components: Float[Tensor, "K D"]

    @property
    def width(self) -> int:
        """Number K of components."""
        return len(self.components)

    def transform(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Coordinates along the components, the one with the largest variance first."""
        return (x - self.mean) @ self.components.T


def fit_pca(x: Float[Tensor, "N D"], width: int, *, seed: int = 0, power: int = 4) -> PCA:
    """The `width` directions of largest variance of (at most 10,000 rows of) x.

    Args:
        width: components to keep; clipped to min(N - 1, D), beyond which no variance is left.
        seed: chooses the rows where there are more than 10,000, and the random directions.
        power: passes of subspace iteration; 0 is a plain random projection, 4 is exact to about 1 % of variance at the last component.
    Raises:
        ValueError: fewer than two rows, or width below 1.
    """
    if len(x) < 2 or width < 1:
        raise ValueError(f"PCA needs at least 2 rows and width 1, got {len(x)} rows and width {width}")
    generator = torch.Generator().manual_seed(seed)
    if len(x) > FIT_ROWS:
        x = x[torch.randperm(len(x), generator=generator)[:FIT_ROWS].to(x.device)]
    mean = x.mean(dim=0)
    x = x - mean
    width = min(width, len(x) - 1, x.shape[1])
    sketch = min(width + 16, *x.shape)  # a few directions more than asked for, so that the last ones are right too
    basis = torch.randn(x.shape[1], sketch, generator=generator).to(x)
    for _ in range(power):
        basis = torch.linalg.qr(x.T @ (x @ basis)).Q  # orthonormal between passes: powers of a spectrum underflow
    left = torch.linalg.qr(x @ basis).Q
    components = torch.linalg.svd(left.T @ x, full_matrices=False).Vh[:width]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return PCA(mean, components * largest.sign())  # a component's sign is arbitrary: its largest entry is positive here


def pixels_pca(train: Items, test: Items, width: int, *, image_size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Raw pixels of (train, test) along the components of the training pixels, each (items, width); labels are not looked at.

    Vectors are taken in standard deviations of their columns, so that no column counts for its unit; what is missing is the mean.

    Args:
        width: that of the encoder; the rows returned are narrower where there are fewer pixels, or fewer items, than that.
        image_size: as for the encoder, 0 for vectors; pixels are taken at side min(image_size, 64).
    """
    side = min(image_size, PIXEL_SIDE)
    rows = some_rows(train, side, seed)
    mean, std = torch.zeros(1), torch.ones(1)
    if not image_size:
        blocks = train.table.blocks if train.table else ()
        mean, std = (torch.from_numpy(s).float() for s in column_statistics(rows.numpy(), blocks))

    def standard(x: Tensor) -> Tensor:
        x = (x - mean) / std
        return x if image_size else x.masked_fill(x.isnan(), 0)

    pca = fit_pca(standard(rows), width, seed=seed)
    train_z, test_z = (
        torch.cat([pca.transform(standard(clean(batch, side).flatten(1))) for batch in sequential(items, 512)]) for items in (train, test)
    )
    return train_z, test_z


def some_rows(items: Items, side: int, seed: int) -> Float[Tensor, "N D"]:
    """At most 10,000 of the items as rows: pixels at that side, or vectors as they are; another seed chooses others."""
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))
    some = items.subset(order[:FIT_ROWS].sort().values.numpy())
    return torch.cat([clean(batch, side).flatten(1) for batch in sequential(some, 512)])


def deviations(rows: Float[Tensor, "N D"]) -> Float[Tensor, " D"]:
    """Standard deviation of each column, 1 where it is constant."""
    std = rows.std(dim=0, correction=0)
    return torch.where(std > 0, std, torch.ones_like(std))
