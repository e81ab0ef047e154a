"""Stacked denoising: Stacked Denoising Autoencoders, one layer after the other.

Vincent, Larochelle, Lajoie, Bengio and Manzagol, JMLR 2010, sections 3 and 6. https://jmlr.org/papers/v11/vincent10a.html

Modality   images, vectors
Hidden     the values of a layer's input that gaussian noise, masking, or salt and pepper have replaced (section 3.5).
Shown      to the layer whose turn it is: the corrupted output of the layer below, which itself sees clean inputs (figure 4).
Predicted  the clean output of the layer below, by a decoder that serves this layer alone.

Axes: B items in the batch; images are (B, C, S, S), vectors (B, D); W units in each of K layers.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.methods.denoising import Corrupted, Corruption, check_emphasis, emphasised
from selfsup.models.reconstruction import ErrorKind, Reconstruction
from selfsup.models.stack import Stack, TiedDecoder, only_stack


class CorruptedLayers:
    """What `Corrupted` gives, for the first layer, and noise for the layers above, whose inputs are made by the network.

    "noise" (B, W) takes the place of the values where "noised" (B, W) is True; gaussian noise is added to them.

    Args:
        inputs: the corruption, with all its settings.
        width: W.
    """

    def __init__(self, inputs: Corrupted, width: int) -> None:
        self.inputs, self.width = inputs, width

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the noise of the inputs, then that of a layer's outputs."""
        views = self.inputs(batch, generator)
        zeros = views["clean"].new_zeros(len(views["clean"]), self.width)
        noise, noised = self.inputs.corrupt(zeros, generator)
        return {**views, "noise": noise, "noised": noised}

    def apply(self, h: Float[Tensor, "B W"], noise: Float[Tensor, "B W"], noised: Bool[Tensor, "B W"]) -> Float[Tensor, "B W"]:
        """A layer's outputs, corrupted by what was drawn."""
        return h + noise if self.inputs.corruption == "gaussian" else torch.where(noised, noise, h)


class StackedDenoising(Method):
    """A denoising autoencoder for each layer of a stack, trained from the lowest upwards, each for an equal share of the run.

    The paper then trains the whole stack with labels (figure 5): `selfsup finetune` does.

    Args:
        encoder: sigmoid layers f_1 to f_K, map (B, C, S, S) or (B, D) to (B, W).
        image_size: S, side of an image, in pixels; 0 for vectors.
        corruption: gaussian noise, masking (values become 0), or salt_and_pepper (values become 0 or 1); the paper has all three.
        level: of every layer: standard deviation of gaussian noise, or fraction of replaced values, 0 to 1; the paper tries 0.1 to 0.4.
        reconstruction: of the inputs: squared_error for values of any range, or cross_entropy for values in [0, 1], the paper's for digits;
            what the other layers predict is in [0, 1], and has the cross entropy.
        alpha: weight of the corrupted values in the error (section 3.6), at least 0; 1 as beta for the plain error.
        beta: weight of the other values, at least 0.
        tied: let a decoder's weights be the transposed ones of its layer, as section 2.1 offers.
    """

    # The paper: plain stochastic gradient descent, at a rate that stays, for each layer alone.
    recipe: ClassVar[Recipe] = Recipe(
        optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=0.0, schedule="constant", warmup=0.0, encoder="stack"
    )

    encoder: Stack  # type: ignore[assignment] - whatever others take
    views: CorruptedLayers  # type: ignore[assignment] - with the noise of all layers
    layer: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 28,
        corruption: Corruption = "masking",
        level: float = 0.25,
        reconstruction: ErrorKind = "squared_error",
        alpha: float = 1.0,
        beta: float = 1.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        check_emphasis(corruption, alpha, beta)
        self.encoder = only_stack(encoder, "stacked_denoising trains")
        downs = [
            Reconstruction(_down(self.encoder, k, tied), "cross_entropy" if k else reconstruction, encoder, 0 if k else image_size)
            for k in range(len(self.encoder.layers))
        ]
        self.decoders = nn.ModuleList(downs)
        self.register_buffer("layer", torch.zeros((), dtype=torch.int64))  # whose turn it is, from 0
        self.alpha, self.beta = alpha, beta
        inputs = Corrupted(image_size, corruption, level, standard=downs[0].standard_numbers())
        self.views = CorruptedLayers(inputs, encoder.width)

    def updates(self, views: Batch) -> Iterator[Update]:
        """One update of the layer whose turn it is, with "layer": its number, from 1."""
        yield Update(self.loss(views), metrics={"layer": self.layer + 1})

    def loss(self, views: Batch) -> Tensor:
        """Emphasised error of what layer k is given, predicted from the same corrupted; a mean over all values. k is `layer`."""
        k = int(self.layer)
        for i in range(len(self.decoders)):
            self.encoder.layers[i].requires_grad_(i == k)  # the others get no gradient, and their optimiser leaves them alone
            self.decoders[i].requires_grad_(i == k)
        clean, shown, hidden = views["clean"], views["shown"], views["hidden"]
        if k > 0:
            with torch.no_grad():
                clean = self.encoder.below(k, clean).float()  # of the clean input, not of a corrupted one (section 3.4)
            shown, hidden = self.views.apply(clean, views["noise"], views["noised"]), views["noised"]
        decoder = self._decoder(k)
        error = decoder.errors(decoder(self.encoder.up(k, shown)), clean)
        return emphasised(error, hidden, self.alpha, self.beta)

    def _decoder(self, k: int) -> Reconstruction:
        decoder = self.decoders[k]
        assert isinstance(decoder, Reconstruction)
        return decoder

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The next layer's turn comes when an equal share of the run is over."""
        layers = len(self.decoders)
        self.layer.fill_(min(int(progress * layers), layers - 1))

    def embed(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B Z"]:
        """What the layers make of clean inputs whose turn is or was; those above are as they began, and give all inputs nearly the same."""
        return self.encoder.below(int(self.layer) + 1, x)

    def code(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B Z"]:
        """What the highest layer makes of inputs."""
        return self.encoder(x)

    def decode(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, "B *shape"]:
        """Down through all decoders, in the units of the data."""
        for k in reversed(range(len(self.decoders))):
            decoder = self._decoder(k)
            z = decoder.in_units(decoder(z))
        return z

    def denoise(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """Up through all layers and down again."""
        return self.decode(self.code(x))

    def reconstruct(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """The same, of clean inputs."""
        return self.decode(self.code(x))


def _down(stack: Stack, k: int, tied: bool) -> nn.Module:
    """Decoder of layer k: (B, W) -> what the layer is given, without the last sigmoid."""
    layer, shape = stack.linears[k], (stack.width,) if k else stack.shape
    return TiedDecoder([layer], shape) if tied else nn.Sequential(nn.Linear(layer.out_features, layer.in_features), nn.Unflatten(1, shape))
