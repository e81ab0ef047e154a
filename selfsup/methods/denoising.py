"""Denoising: Stacked Denoising Autoencoders, Learning Useful Representations with a Local Denoising Criterion.

Vincent, Larochelle, Lajoie, Bengio and Manzagol, JMLR 2010. https://jmlr.org/papers/v11/vincent10a.html
First described by Vincent, Larochelle, Bengio and Manzagol, ICML 2008.

Modality   images, vectors, tables
Hidden     the values that gaussian noise, masking, or salt and pepper have replaced (section 3.5).
Shown      the corrupted input.
Predicted  the clean input, by a decoder from the encoder's vector; corrupted values weigh alpha, the others beta.

Axes: B items in the batch; images are (B, C, S, S), vectors (B, D).
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models import input_channels
from selfsup.models.decoders import decoder
from selfsup.models.normalize import Normalize
from selfsup.models.table import as_mean, columns_of, filled, known_values, row_error
from selfsup.views import corruptions
from selfsup.views.crops import RandomCrop

Corruption = Literal["gaussian", "masking", "salt_and_pepper"]


class Corrupted:
    """A corrupted input and what was there: "shown", "clean" and "hidden", all of one shape; "hidden" is True where a value was changed.

    Images are light random crops, in [0, 1]. Vectors may be standardised: "clean" is then in standard deviations, so that no column counts
    for its unit, and so is the noise; "shown" is in the units of the data again.

    Args:
        image_size: S in pixels, 0 for vectors.
        corruption: kind of noise.
        level: standard deviation of gaussian noise, or the fraction of values that are replaced.
        smallest_crop: smallest area of a crop, as a fraction of the image.
        standard: mean and deviation of each column of vectors, (D,) each; None leaves vectors as they are.
        columns: of rows of a table, the column of each place, (D,): all places of a category are corrupted together.
    """

    def __init__(
        self,
        image_size: int,
        corruption: Corruption,
        level: float,
        smallest_crop: float = 1.0,
        standard: tuple[Tensor, Tensor] | None = None,
        columns: Tensor | None = None,
    ) -> None:
        self.crop = RandomCrop(image_size, scale=(smallest_crop, 1.0)) if image_size else None
        self.corruption, self.level, self.standard, self.columns = corruption, level, standard, columns

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the crop and the noise of each item."""
        clean = self.crop(batch, generator)["image"] if self.crop else batch["vector"]
        mean, std = (t.to(clean.device) for t in self.standard) if self.standard else (0.0, 1.0)
        clean = (clean - mean) / std if self.standard else clean
        shown, hidden = self.corrupt(clean, generator)
        return {"shown": shown * std + mean if self.standard else shown, "clean": clean, "hidden": hidden}

    def corrupt(self, x: Float[Tensor, "B *rest"], generator: torch.Generator) -> tuple[Float[Tensor, "B *rest"], Bool[Tensor, "B *rest"]]:
        """Corrupted x, and True where it is. All channels of a pixel go together, as one would give the others away."""
        if self.corruption == "gaussian":
            return corruptions.gaussian(x, generator, self.level)
        replace = corruptions.masking if self.corruption == "masking" else corruptions.salt_and_pepper
        columns = None if self.columns is None else self.columns.to(x.device)
        return replace(x, generator, self.level, whole_pixels=x.ndim == 4, columns=columns)


class Denoising(Method):
    """Denoising autoencoder: encoder f and decoder g, trained so that g(f(corrupted x)) is x.

    Args:
        encoder: f, maps (B, C, S, S) or (B, D) to (B, encoder.width).
        image_size: S, side of an image, in pixels, 8 or more; 0 for vectors.
        blocks: of rows of a table, the places (start, stop) of every category; see `selfsup.models.table`.
        corruption: gaussian noise, masking (values become 0), or salt_and_pepper (values become 0 or 1); the paper has all three.
        level: standard deviation of gaussian noise in units of the input, or fraction of replaced values, 0 to 1; papers: 0.1 to 0.5.
        reconstruction: squared_error for values of any range, or cross_entropy for values in [0, 1]; the paper has both.
        alpha: weight of the corrupted values in the error (section 3.6), at least 0; 1 as beta for the plain error.
        beta: weight of the other values, at least 0; the paper's full emphasis is alpha 1, beta 0.
        smallest_crop: smallest area of a random crop, as a fraction of the image, above 0 to 1; unused for vectors.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=256, weight_decay=1e-2)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 32,
        blocks: Sequence[tuple[int, int]] = (),
        corruption: Corruption = "masking",
        level: float = 0.5,
        reconstruction: Literal["squared_error", "cross_entropy"] = "squared_error",
        alpha: float = 1.0,
        beta: float = 1.0,
        smallest_crop: float = 0.5,
    ) -> None:
        super().__init__()
        if corruption not in ("gaussian", "masking", "salt_and_pepper"):
            raise ValueError(f'corruption must be "gaussian", "masking" or "salt_and_pepper", got "{corruption}"')
        if reconstruction not in ("squared_error", "cross_entropy"):
            raise ValueError(f'reconstruction must be "squared_error" or "cross_entropy", got "{reconstruction}"')
        if level <= 0 or (corruption != "gaussian" and level > 1):
            raise ValueError(f"level of {corruption} must be positive{'' if corruption == 'gaussian' else ' and at most 1'}, got {level}")
        if alpha < 0 or beta < 0 or alpha + beta == 0:
            raise ValueError(f"alpha and beta must be at least 0 and not both 0, got alpha={alpha}, beta={beta}")
        if corruption == "gaussian" and alpha == 0:
            raise ValueError("gaussian noise changes every value, so alpha=0 leaves no error; choose alpha > 0")
        self.encoder = encoder
        self.decoder = decoder(encoder.width, channels=input_channels(encoder), image_size=image_size)
        self.reconstruction, self.alpha, self.beta = reconstruction, alpha, beta
        if blocks and reconstruction != "squared_error":
            raise ValueError("tables with categories need reconstruction squared_error; categories are always scored by cross entropy")
        self.blocks = tuple(blocks)
        layer = getattr(encoder, "normalize", None)
        standardised = image_size == 0 and reconstruction == "squared_error" and isinstance(layer, Normalize)
        self.standard = (layer.mean, layer.std) if standardised else None
        columns = columns_of(input_channels(encoder), blocks) if blocks else None
        self.views = Corrupted(image_size, corruption, level, smallest_crop, self.standard, columns)

    def loss(self, views: Batch) -> Tensor:
        """Emphasised error of the clean input predicted from the corrupted one, a mean over all values."""
        predicted = self.decoder(self.encoder(views["shown"])).float()
        if views["clean"].ndim == 2 and self.reconstruction == "squared_error":
            known = known_values(views["clean"], self.blocks)
            error = row_error(predicted, views["clean"], known, self.blocks)
            return emphasised(as_mean(error, known), views["hidden"], self.alpha, self.beta)
        error = squared_error if self.reconstruction == "squared_error" else cross_entropy
        return emphasised(error(predicted, views["clean"]), views["hidden"], self.alpha, self.beta)

    def reconstruct(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """g(f(x)) in the units of the data; probabilities in the blocks of categories."""
        out = self.decoder(self.encoder(x)).float()
        if self.reconstruction == "cross_entropy":
            return out.sigmoid()
        if self.standard is not None:
            mean, std = (t.to(out.device) for t in self.standard)
            out = out * std + mean
        return filled(out, self.blocks) if out.ndim == 2 else out.clamp(0, 1)


def emphasised(error: Float[Tensor, "*shape"], hidden: Bool[Tensor, "*shape"], alpha: float, beta: float) -> Float[Tensor, ""]:
    """Section 3.6: alpha times the errors of corrupted values and beta times those of the others, divided by the number of values.

    The paper sums over the values of an item; the mean is the same but for a constant, and leaves the learning rate alone. With
    alpha = beta = 1 it is the plain mean.
    """
    return (error * torch.where(hidden, alpha, beta)).mean()


def squared_error(predicted: Float[Tensor, "*shape"], clean: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(x - z)^2 of each value, for outputs of any range (section 2.2)."""
    return (predicted - clean) ** 2


def cross_entropy(predicted: Float[Tensor, "*shape"], clean: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """-x log z - (1 - x) log(1 - z) of each value, where z = sigmoid(predicted) and x is in [0, 1] (section 2.2).

    Raises:
        ValueError: vectors outside of [0, 1]; images are never.
    """
    if clean.ndim == 2 and bool((clean.amin() < 0) | (clean.amax() > 1)):
        got = f"{float(clean.amin()):.4g} to {float(clean.amax()):.4g}"
        raise ValueError(f"cross_entropy needs values in [0, 1], got {got}; choose reconstruction squared_error")
    return F.binary_cross_entropy_with_logits(predicted, clean, reduction="none")
