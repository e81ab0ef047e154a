"""Autoencoder: Reducing the Dimensionality of Data with Neural Networks.

Hinton and Salakhutdinov, Science 2006. https://doi.org/10.1126/science.1127647

Modality   images, vectors, tables
Hidden     nothing but what the code has no room for.
Shown      the whole input.
Predicted  the input itself, by a decoder from its code; principal components of the same width are what it has to beat.

Axes: B items in the batch; images are (B, C, S, S), vectors (B, D); Z length of the code.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models import input_channels
from selfsup.models.decoders import decoder
from selfsup.models.kept_head import with_head
from selfsup.models.reconstruction import ErrorKind, Reconstruction
from selfsup.views.crops import clean


class Whole:
    """The input as it is, "input": the central square of images, (B, C, S, S) in [0, 1], or vectors (B, D).

    Args:
        image_size: S in pixels, 0 for vectors.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return {"input": clean(batch, self.image_size)}


class Autoencoder(Method):
    """Encoder and decoder, trained so that the decoder makes the input from its code.

    The paper pretrains the layers one by one, as restricted Boltzmann machines, since deep networks would not train otherwise in 2006; here
    the whole network is trained at once.

    Args:
        encoder: maps (B, C, S, S) or (B, D) to (B, encoder.width).
        image_size: S, side of an image, in pixels, 8 or more; 0 for vectors.
        categories: of rows of a table, the places (start, stop) of every category; see `selfsup.models.table`.
        code_size: Z, width of a linear layer that makes the code and stays with the encoder; 0: the encoder's own vector is the code. The
            paper's is 30 for digits, 2 for pictures of them.
        reconstruction: squared_error for values of any range, or the paper's cross_entropy for values in [0, 1].
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=0.0)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 32,
        categories: Sequence[tuple[int, int]] = (),
        code_size: int = 0,
        reconstruction: ErrorKind = "squared_error",
    ) -> None:
        super().__init__()
        if code_size < 0:
            raise ValueError(f"code_size must be positive, or 0 for the encoder's own vector, got {code_size}")
        self.encoder = with_head(encoder, code_size=code_size)
        network = decoder(self.encoder.width, channels=input_channels(encoder), image_size=image_size)
        self.decoder = Reconstruction(network, reconstruction, encoder, image_size, categories)
        self.views = Whole(image_size)

    def loss(self, views: Batch) -> Tensor:
        """Error of the input predicted from its code, a mean over all values."""
        x = views["input"]
        return self.decoder.errors(self.decoder(self.encoder(x)), x).mean()

    def code(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B Z"]:
        """What the encoder makes of inputs."""
        return self.embed(x)

    def decode(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, "B *shape"]:
        """Codes back to inputs, in the units of the data."""
        return self.decoder.in_units(self.decoder(z))

    def reconstruct(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """Inputs through the code and back."""
        return self.decode(self.code(x))
