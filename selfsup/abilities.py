"""What a trained method can do for a user beside giving vectors, each ability one or two functions.

A method that has an ability defines its functions and nothing else: no base class, no list. `selfsup detect`, `generate` and others ask
with `isinstance(method, Reconstructs)`, and the report draws whatever a method can show.

Images are (B, C, H, W) float in [0, 1], clean, of the size that the method was trained at unless its docstring allows any; vectors are
(B, D) in the units of the data. Methods are called in evaluation mode and without gradients; random numbers come from torch's global
generator.

Axes: B items in the batch, Z length of a code, h and w sides of a map of codes.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Reconstructs(Protocol):
    """Predicts all of an input from what its code keeps of it."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """Inputs -> as many of the same shape and units."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """Has codes between which one can walk."""

    def code(self, x: Tensor) -> Tensor:
        """Inputs -> (B, Z) float."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """(B, Z) -> images in [0, 1], or vectors."""
        ...


@runtime_checkable
class Samples(Protocol):
    """Makes new items from noise."""

    def sample(self, n: int) -> Tensor:
        """n images in [0, 1], or vectors."""
        ...


@runtime_checkable
class Quantises(Protocol):
    """Turns images into integers that can be stored, and back."""

    codebook_size: int

    def quantise(self, x: Tensor) -> Tensor:
        """Images -> (B, h, w) int64, 0 to codebook_size - 1."""
        ...

    def from_codes(self, codes: Tensor) -> Tensor:
        """(B, h, w) int64 -> images in [0, 1]."""
        ...


@runtime_checkable
class Inpaints(Protocol):
    """Fills regions of an image from what is around them."""

    def inpaint(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Images and (B, 1, H, W) bool, True where a pixel is unknown -> the images with those pixels filled, the others as they were."""
        ...


@runtime_checkable
class Colorizes(Protocol):
    """Gives colours to gray images."""

    def colorize(self, gray: Tensor) -> Tensor:
        """(B, 1, H, W) gray values in [0, 1], as sRGB -> (B, 3, H, W)."""
        ...


@runtime_checkable
class Denoises(Protocol):
    """Takes noise away."""

    def denoise(self, x: Tensor) -> Tensor:
        """Noisy images -> clean ones of the same shape."""
        ...


@runtime_checkable
class Continues(Protocol):
    """Says how likely a text is, token by token, and how it might go on."""

    end: int

    def log_likelihood(self, ids: Tensor) -> Tensor:
        """(B, T) token numbers -> (B, T - 1), log p of each but the first given those before it, in nats."""
        ...

    def go_on(self, prompt: Tensor, n: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
        """(B, T) token numbers -> (B, T + n), n more drawn one by one; `end` stands before and after every text."""
        ...


@runtime_checkable
class NamesTokens(Protocol):
    """Names the token at any place of a text from its vector."""

    def scores(self, hidden: Tensor) -> Tensor:
        """(M, width) vectors of the last layer -> (M, V) logits of every token of the vocabulary."""
        ...


@runtime_checkable
class Explains(Protocol):
    """Has numbers about its code that a person should look at."""

    def explain(self, x: Tensor) -> Mapping[str, Tensor]:
        """Inputs -> what a row of bars is about, with its unit -> (n,) float: {"KL of each dimension, nats": (Z,)}."""
        ...
