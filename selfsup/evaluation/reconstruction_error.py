"""What a code keeps of its inputs, beside principal components of the same width: the least that an autoencoder has to beat.

Axes: B items in the batch, Z width of the code.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.data import Items, sequential
from selfsup.evaluation.pca import PIXEL_SIDE, deviations, fit_pca, some_rows
from selfsup.views.crops import clean


class AgainstPCA(NamedTuple):
    """Squared errors of one value, means over all values of the items, in the units of the data squared.

    Vectors count in standard deviations of their columns, so that none counts for its unit; 1 is then the error of the mean.
    """

    squared_error: float
    pca_squared_error: float
    width: int  # of the code, and of the PCA
    items: int

    def in_words(self) -> str:
        """One line for a person."""
        components = f"{self.width} principal component{'' if self.width == 1 else 's'}"
        return f"squared error {self.squared_error:.4g} of a value; {self.pca_squared_error:.4g} with {components}"


@torch.no_grad()
def reconstruction_against_pca(
    reconstruct: Callable[[Tensor], Tensor], train: Items, test: Items, width: int, *, image_size: int, seed: int = 0
) -> AgainstPCA:
    """How far reconstructions are from their inputs, and how far those from principal components of equal width are.

    Args:
        reconstruct: clean inputs as the network takes them -> as many, in the same units.
        train: what the components are fitted to, at most 10,000 items; labels are not looked at.
        test: what both are measured on.
        width: Z of the code; fewer components are taken where there are no more.
        image_size: as for the network, 0 for vectors; larger images than 64 pixels, and their reconstructions, are compared at 64.
        seed: of the choice of items that the PCA is fitted to.
    Raises:
        ValueError: rows of a table, whose gaps and categories have no principal components.
    """
    if train.table:
        raise ValueError(f"{train.source} is a table; principal components are of images and vectors without gaps and categories")
    side = min(image_size, PIXEL_SIDE)
    rows = some_rows(train, side, seed)
    scale = torch.ones(1) if image_size else deviations(rows)
    pca = fit_pca(rows / scale, width, seed=seed)
    sums, values = torch.zeros(2, dtype=torch.float64), 0
    for batch in sequential(test, 256):
        x = clean(batch, image_size)
        small, made = (_at(y, side).flatten(1) / scale for y in (x, reconstruct(x).float()))
        by_pca = pca.transform(small) @ pca.components + pca.mean
        sums += torch.stack([((y - small) ** 2).sum(dtype=torch.float64) for y in (made, by_pca)])
        values += small.numel()
    own, rival = (sums / values).tolist()
    return AgainstPCA(own, rival, pca.width, len(test))


def _at(x: Tensor, side: int) -> Tensor:
    return x if x.ndim == 2 or x.shape[-1] == side else F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
