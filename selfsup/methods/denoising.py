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
from jaxtyping import Bool, Float
from torch import Tensor

from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models import input_channels
from selfsup.models.decoders import decoder
from selfsup.models.reconstruction import ErrorKind, Reconstruction
from selfsup.models.stack import TiedDecoder, only_stack
from selfsup.models.table import columns_of
from selfsup.views import corruptions
from selfsup.views.crops import RandomCrop, clean

Corruption = Literal["gaussian", "masking", "salt_and_pepper"]


class Corrupted:
    """A corrupted input and what was there: "shown", "clean" and "hidden", all of one shape; "hidden" is True where a value was changed.

    Images are light random crops, in [0, 1]. Vectors are in the units of the data, but may be standardised for the noise: it is then in
    standard deviations, and what masking leaves of a value is its column's mean.

    Args:
        image_size: S in pixels, 0 for vectors.
        corruption: kind of noise.
        level: standard deviation of gaussian noise, or the fraction of values that are replaced.
        smallest_crop: smallest area of a crop, as a fraction of the image; 1.0 without `flip` is the central square.
        flip: probability of a mirrored image.
        standard: mean and deviation of each column of vectors, (D,) each; None leaves vectors as they are.
        columns: of rows of a table, the column of each place, (D,): all places of a category are corrupted together.

    Raises:
        ValueError: another corruption, or a level that it does not have.
    """

    def __init__(
        self,
        image_size: int,
        corruption: Corruption,
        level: float,
        smallest_crop: float = 1.0,
        flip: float = 0.0,
        standard: tuple[Tensor, Tensor] | None = None,
        columns: Tensor | None = None,
    ) -> None:
        if corruption not in ("gaussian", "masking", "salt_and_pepper"):
            raise ValueError(f'corruption must be "gaussian", "masking" or "salt_and_pepper", got "{corruption}"')
        if level <= 0 or (corruption != "gaussian" and level > 1):
            raise ValueError(f"level of {corruption} must be positive{'' if corruption == 'gaussian' else ' and at most 1'}, got {level}")
        self.image_size, self.corruption, self.level, self.standard, self.columns = image_size, corruption, level, standard, columns
        moves = image_size > 0 and (smallest_crop < 1 or flip > 0)
        self.crop = RandomCrop(image_size, scale=(smallest_crop, 1.0), flip=flip) if moves else None

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the crop and the noise of each item."""
        x = self.crop(batch, generator)["image"] if self.crop else clean(batch, self.image_size)
        if self.standard is None:
            shown, hidden = self.corrupt(x, generator)
        else:
            mean, std = (t.to(x.device) for t in self.standard)
            shown, hidden = self.corrupt((x - mean) / std, generator)
            shown = torch.where(hidden, shown * std + mean, x)
        return {"shown": shown, "clean": x, "hidden": hidden}

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
        categories: of rows of a table, the places (start, stop) of every category; see `selfsup.models.table`.
        corruption: gaussian noise, masking (values become 0), or salt_and_pepper (values become 0 or 1); the paper has all three.
        level: standard deviation of gaussian noise in units of the input, or fraction of replaced values, 0 to 1; papers: 0.1 to 0.5.
        reconstruction: squared_error for values of any range, or cross_entropy for values in [0, 1]; the paper has both.
        alpha: weight of the corrupted values in the error (section 3.6), at least 0; 1 as beta for the plain error.
        beta: weight of the other values, at least 0; the paper's full emphasis is alpha 1, beta 0.
        tied: let g be f backwards, its weights the transposed ones of f, which must be fully connected; section 2.1 offers both.
        smallest_crop: smallest area of a random crop, as a fraction of the image, above 0 to 1; unused for vectors.
        flip: probability of a mirrored image; 0 where left and right matter, as in digits.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=0.0)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 32,
        categories: Sequence[tuple[int, int]] = (),
        corruption: Corruption = "masking",
        level: float = 0.5,
        reconstruction: ErrorKind = "squared_error",
        alpha: float = 1.0,
        beta: float = 1.0,
        tied: bool = False,
        smallest_crop: float = 0.5,
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        check_emphasis(corruption, alpha, beta)
        self.encoder = encoder
        if tied:
            stack = only_stack(encoder, "tied weights need")
            g = TiedDecoder(stack.linears, stack.shape)
        else:
            g = decoder(encoder.width, channels=input_channels(encoder), image_size=image_size)
        self.decoder = Reconstruction(g, reconstruction, encoder, image_size, categories)
        self.alpha, self.beta = alpha, beta
        columns = columns_of(input_channels(encoder), categories) if categories else None
        self.views = Corrupted(image_size, corruption, level, smallest_crop, flip, self.decoder.standard_numbers(), columns)

    def loss(self, views: Batch) -> Tensor:
        """Emphasised error of the clean input predicted from the corrupted one, a mean over all values."""
        error = self.decoder.errors(self.decoder(self.encoder(views["shown"])), views["clean"])
        return emphasised(error, views["hidden"], self.alpha, self.beta)

    def code(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B Z"]:
        """f(x)."""
        return self.embed(x)

    def decode(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, "B *shape"]:
        """g(z), in the units of the data."""
        return self.decoder.in_units(self.decoder(z))

    def denoise(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """g(f(x)), what x was before noise came to it; with noise of the kind and level that was trained on."""
        return self.decode(self.code(x))

    def reconstruct(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """The same, of clean inputs."""
        return self.decode(self.code(x))


def check_emphasis(corruption: str, alpha: float, beta: float) -> None:
    """Raise ValueError for weights that leave no error."""
    if alpha < 0 or beta < 0 or alpha + beta == 0:
        raise ValueError(f"alpha and beta must be at least 0 and not both 0, got alpha={alpha}, beta={beta}")
    if corruption == "gaussian" and alpha == 0:
        raise ValueError("gaussian noise changes every value, so alpha=0 leaves no error; choose alpha > 0")


def emphasised(error: Float[Tensor, "*shape"], hidden: Bool[Tensor, "*shape"], alpha: float, beta: float) -> Float[Tensor, ""]:
    """Section 3.6: alpha times the errors of corrupted values and beta times those of the others, divided by the number of values.

    The paper sums over the values of an item; the mean is the same but for a constant, and leaves the learning rate alone. With
    alpha = beta = 1 it is the plain mean.
    """
    return torch.where(hidden, alpha * error, beta * error).mean()
