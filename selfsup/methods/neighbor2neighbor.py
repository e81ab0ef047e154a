"""Neighbor2Neighbor: Self-Supervised Denoising from Single Noisy Images.

Huang, Li, Jia, Lu and Liu, CVPR 2021. https://arxiv.org/abs/2101.02824

Modality   images
Hidden     one pixel of each 2x2 cell of a noisy image: g2(y), half as large (section 4.1).
Shown      a neighbour of it in the same cell: g1(y). Both are drawn anew for every cell.
Predicted  g2(y) from g1(y); its noise is independent of what is shown, so its mean is the best guess, and that is the clean pixel.

Axes: B images, C channels, S side of an image, h = S // 2 side of a sub-sampled one.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models import input_channels
from selfsup.models.unet import Expanding, UNet, in_tiles
from selfsup.views.noise import FixedNoise
from selfsup.views.sampling import uniform
from selfsup.views.windows import random_windows

PAIRS = ((0, 1), (0, 2), (1, 3), (2, 3), (1, 0), (2, 0), (3, 1), (3, 2))
"""Neighbours in a cell, whose pixels are 0 1 above 2 3: side by side, never across (figure 3)."""


class NoisyNeighbours:
    """A window of each noisy image, "noisy" (B, C, S, S), which of the eight pairs each of its cells has, "pair" (B, h, h), and the two
    sub-sampled images, "first" g1(y) and "second" g2(y), of (B, C, h, h). Nothing is resized; the last row and column of an odd S have no
    cell.

    Args:
        image_size: S in pixels, 2 or more.
        noise: what is added to images that have none; None for images that are noisy as they come.
    """

    def __init__(self, image_size: int, noise: FixedNoise | None) -> None:
        if image_size < 2:
            raise ValueError(f"a cell is 2 x 2 pixels, so images must be at least 2 wide, got image_size={image_size}")
        self.image_size, self.noise = image_size, noise

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the window of each image and the pair of each cell."""
        image, rows, columns = random_windows(batch, generator, self.image_size)
        noisy = self.noise(image, batch["index"], rows, columns) if self.noise else image.float() / 255
        h = self.image_size // 2
        pair = (uniform(len(noisy), generator, 0.0, float(len(PAIRS)), h, h)).long().clamp(max=len(PAIRS) - 1)
        first, second = subsample(noisy, pair)
        return {"noisy": noisy, "first": first, "second": second, "pair": pair}


class Neighbor2Neighbor(Method):
    """Denoiser f, a U-Net, trained on noisy images alone (algorithm 1). The noise must have mean 0 and be independent from pixel to pixel.

    Images are cut, never resized, in training and in use: resizing would mix the noise of neighbours. JPEG files whose noise is older than
    the file have lost that independence.

    Args:
        encoder: the contracting half of f; must be "unet".
        image_size: S, side of a window of an image in training, in pixels, 2 or more; the paper's is 256.
        gamma: weight of the regulariser at the end of the training, to which it grows evenly from 0; no unit, at least 0. The paper has 2
            for synthetic noise and 16 for real raw photographs; more is smoother.
        noise: noise to add to clean images, for experiments; each image has one noisy version for the whole run. none: the images are noisy
            as they come.
        level: of gaussian noise the standard deviation in units of 0..255, the paper's is 25; of poisson noise the mean number of photons
            of a white pixel, the paper's is 30. Unused without noise.
    """

    # The paper: Adam with 3e-4 for batches of 4, that is 6e-4 for 16 here; halved after each fifth of 100 epochs.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=6e-4, batch_size=16, weight_decay=0.0, encoder="unet")
    any_size: ClassVar[bool] = True
    resizes: ClassVar[bool] = False

    encoder: UNet  # type: ignore[assignment] - whatever others take

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 256,
        gamma: float = 2.0,
        noise: Literal["none", "gaussian", "poisson"] = "none",
        level: float = 25.0,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, UNet):
            got = vars(encoder).get("spec", {}).get("name", type(encoder).__name__)
            raise ValueError(f'neighbor2neighbor needs the encoder "unet", whose maps its decoder takes, got "{got}"; leave --encoder out')
        if gamma < 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        self.encoder = encoder
        self.decoder = Expanding(input_channels(encoder))
        self.gamma = gamma
        seed = int(torch.randint(2**62, ()))  # from the run's own seed, and so the same after a resume
        self.views = NoisyNeighbours(image_size, None if noise == "none" else FixedNoise(noise, level, seed))

    def f(self, y: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Noisy images of any size -> clean ones, unbounded; the network itself works in standard deviations."""
        mean, std = (x.view(-1, 1, 1) for x in (self.encoder.normalize.mean, self.encoder.normalize.std))
        return self.decoder(self.encoder.maps(y)).float() * std + mean

    def loss(self, views: Batch) -> Tensor:
        """Reconstruction and regulariser, equation 8."""
        return next(self.updates(views)).loss

    def updates(self, views: Batch) -> Iterator[Update]:
        """One update, with the mean squared "reconstruction" error, which no denoiser brings below the noise, and the "regulariser"."""
        gamma = self.gamma * self.progress  # it grows with the training
        with torch.no_grad():
            first, second = subsample(self.f(views["noisy"]), views["pair"])
        rec, reg = terms(self.f(views["first"]), views["second"], first, second)
        yield Update(rec + gamma * reg, metrics={"reconstruction": rec.detach(), "regulariser": reg.detach()})

    def denoise(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Noisy images of any size, in units of [0, 1] but not bound to it -> clean ones in [0, 1]; large ones in tiles."""
        return in_tiles(self.f, x).clamp(0, 1)


def subsample(x: Float[Tensor, "B C H W"], pair: Int[Tensor, "B h w"]) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
    """(g1(x), g2(x)): of each 2x2 cell the two pixels that its pair names, all channels of a pixel together (section 4.1).

    Args:
        x: images; h = H // 2, w = W // 2.
        pair: number in `PAIRS` of each cell.
    """
    (b, c), (h, w) = x.shape[:2], pair.shape[1:]
    cells = x[:, :, : 2 * h, : 2 * w].reshape(b, c, h, 2, w, 2).permute(0, 1, 2, 4, 3, 5).flatten(4)  # (B, C, h, w, 4)
    which = torch.tensor(PAIRS, device=x.device)[pair]  # (B, h, w, 2)
    both = cells.gather(4, which[:, None].expand(-1, c, -1, -1, -1))
    return both[..., 0], both[..., 1]


def terms(
    predicted: Float[Tensor, "B C h w"],
    second: Float[Tensor, "B C h w"],
    clean_first: Float[Tensor, "B C h w"],
    clean_second: Float[Tensor, "B C h w"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(L_rec, L_reg) of equation 8, means over all values: |f(g1(y)) - g2(y)|^2, |f(g1(y)) - g2(y) - (g1(f(y)) - g2(f(y)))|^2.

    Neighbours differ also without noise; the second term allows for as much difference as the denoised image has there.

    Args:
        predicted: f(g1(y)).
        second: g2(y).
        clean_first, clean_second: g1(f(y)) and g2(f(y)), without gradient.
    """
    error = predicted - second
    return error.square().mean(), (error - (clean_first - clean_second)).square().mean()
