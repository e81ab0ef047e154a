"""From a name to an encoder, and from a user's own network to one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.normalize import Normalize

TEXT = ("bert_tiny", "bert_mini", "bert_small", "bert_medium", "bert_base", "gpt_nano", "gpt_mini", "gpt2", "words_100", "words_300")
IMPORTED = ("bert", "gpt")
RESIDUAL = ("small", "resnet18", "resnet34", "resnet50")
IMAGES = (*RESIDUAL, "vit_tiny", "vit_small", "vit_base", "dcgan", "unet", "vq_2", "vq_4", "vq_8", "vq_16")
OF_VECTORS = ("mlp", "table", "stack")
ENCODERS = (*IMAGES, *OF_VECTORS, *TEXT)
"""Names that `build_encoder` knows: of `OF_VECTORS` "table" takes rows of tables and "stack" images too, those of `TEXT` token
numbers. There is words_N for every N."""


def build_encoder(
    name: str,
    *,
    channels: int,
    image_size: int,
    pool: Literal["class", "mean", "last_two"] | None = None,
    patches: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    sees: str | None = None,
    split: str | None = None,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
) -> Encoder:
    """The encoder of that name, freshly initialised from torch's global generator.

    Args:
        name: one of `ENCODERS`; or bert or gpt, with a shape in `text`.
        channels: C of images (B, C, H, W), D of vectors (B, D), or the vocabulary's size of text (B, T).
        image_size: side in pixels that it will mostly see; 0 for vectors and text.
        pool: of a ViT, what becomes the vector: its class token (None), or the mean of its patches' tokens; of text the mean of the tokens
            (None), the first one or the mean of the last two layers' tokens; others have no choice.
        patches: of an encoder of patches, the arguments of `PatchGrid`; None for one of whole images.
        head: of an encoder that keeps layers of its head, the arguments of `EncoderAndHead`; None for one that does not.
        text: of text, the most tokens of a document as "length", the numbers of its special tokens "pad", "start" and "end", and of bert
            and gpt the "shape", see `TextTransformer`.
        sees: "lightness" for an encoder that sees no colours; None for one that sees everything.
        split: of two networks that see some channels each, which: see `Split`; None for one network.
        mean, std: statistics of the data, one number a channel in units of the input; None for the encoder's defaults; not for text.

    Returns:
        An encoder whose `spec` holds the JSON-able arguments that build the same network again; the statistics are in its buffers.

    Raises:
        ValueError: no such name (the nearest one is named), or channels or a size that this encoder cannot take.
    """
    of_words = re.fullmatch(r"words_[1-9]\d{0,4}", name) is not None
    if name not in (*ENCODERS, *IMPORTED) and not of_words:
        near = difflib.get_close_matches(name, ENCODERS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(ENCODERS)}"
        raise ValueError(f'no encoder "{name}"; {hint}')
    if channels < 1:
        raise ValueError(f'encoder "{name}" needs at least 1 channel, got channels={channels}')
    of_text = name in (*TEXT, *IMPORTED) or of_words
    if of_text != (text is not None):
        takes = "text" if of_text else "images or vectors"
        raise ValueError(f'encoder "{name}" takes {takes}; choose one of {", ".join(TEXT)} for text, another for other data')
    if text is not None:
        return _of_text(name, channels, text, pool or "mean", of_words=of_words)
    if name in ("mlp", "table") and image_size != 0:
        raise ValueError(f'encoder "{name}" takes vectors, image_size=0, got image_size={image_size}; for images choose small, say')
    if name not in OF_VECTORS and image_size < 1:
        raise ValueError(f'encoder "{name}" takes images of at least 1 pixel, got image_size={image_size}; for vectors choose mlp or stack')
    if pool == "last_two" or (pool == "mean" and not name.startswith("vit")):
        raise ValueError(f'pool={pool!r} is a choice of {"BERTs" if pool == "last_two" else "ViTs and text"} only, got encoder "{name}"')
    encoder = _build(name, channels, image_size, pool or "class", _numbers(mean), _numbers(std))
    vars(encoder)["spec"] = {"name": name, "channels": channels, "image_size": image_size}
    if pool == "mean":
        encoder.spec["pool"] = pool
    return dress(encoder, patches=patches, head=head, sees=sees, split=split)


def dress(
    encoder: Encoder,
    *,
    patches: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    sees: str | None = None,
    split: str | None = None,
) -> Encoder:
    """Put around an encoder what a method had put around it, as its `spec` says; see `build_encoder`."""
    if patches is not None:
        from selfsup.models.patch_grid import patch_grid

        encoder = patch_grid(encoder, **patches)
    if head is not None:
        from selfsup.models.kept_head import with_head

        encoder = with_head(encoder, **head)
    if sees is not None:
        from selfsup.models.lightness import seeing

        encoder = seeing(encoder, sees)
    if split is not None:
        from selfsup.models.split import split_encoder

        encoder = split_encoder(encoder, split)
    return encoder


HALVES = ("small", "resnet18", "resnet34", "resnet50", "dcgan")
"""Encoders that `build_half` knows."""


def build_half(name: str, channels: int, image_size: int, mean: list[float] | None = None, std: list[float] | None = None) -> Encoder:
    """An encoder of that name with half as many planes in every layer; its `spec` has no name, as nothing else builds it.

    Raises:
        ValueError: there is no half of it.
    """
    if name not in HALVES:
        raise ValueError(f'there are networks of half the width of {", ".join(HALVES)}, got encoder "{name}"')
    encoder = _build(name, channels, image_size, "class", mean, std, planes=32)
    vars(encoder)["spec"] = {"channels": channels, "image_size": image_size}
    return encoder


def _build(
    name: str,
    channels: int,
    image_size: int,
    pool: Literal["class", "mean"],
    mean: list[float] | None,
    std: list[float] | None,
    planes: int = 64,
) -> Encoder:
    kind, _, size = name.partition("_")
    if kind == "small":
        from selfsup.models.small import Small

        return Small(channels=channels, planes=planes, mean=mean, std=std)
    if kind.startswith("resnet"):
        from selfsup.models.resnet import ResNet

        return ResNet(int(kind.removeprefix("resnet")), channels=channels, image_size=image_size, planes=planes, mean=mean, std=std)
    if kind == "vit":
        from selfsup.models.vit import ViT

        return ViT(size, channels=channels, image_size=image_size, pool=pool, mean=mean, std=std)
    if kind == "dcgan":
        from selfsup.models.dcgan import Discriminator

        return Discriminator(channels=channels, image_size=image_size, base=planes, mean=mean, std=std)
    if kind == "vq":
        from selfsup.models.vq import VQEncoder

        return VQEncoder(int(size), channels=channels, mean=mean, std=std)
    if kind == "table":
        from selfsup.models.table import Table

        return Table(channels=channels, mean=mean, std=std)
    if kind == "stack":
        from selfsup.models.stack import Stack

        return Stack(channels=channels, image_size=image_size, mean=mean, std=std)
    if kind == "unet":
        from selfsup.models.unet import UNet

        return UNet(channels=channels, mean=mean, std=std)
    from selfsup.models.mlp import MLP

    return MLP(channels=channels, mean=mean, std=std)


def _numbers(values: Sequence[float] | Tensor | None) -> list[float] | None:
    return values.tolist() if isinstance(values, Tensor) else None if values is None else [float(v) for v in values]


class Wrapped(Encoder):
    """A user's own network behind the standardising layer; maps (B, C, h, w) are averaged over their positions.

    Args:
        module: maps (B, channels, image_size, image_size), or (B, channels) for vectors, to (B, width) or (B, width, h, w).
        width: length of the vector.
        channels: C of the input.
        mean, std: statistics of the data; None leaves the input as it is, in [0, 1], as the user's network may standardise by itself.
    """

    def __init__(
        self, module: nn.Module, width: int, channels: int, mean: list[float] | None = None, std: list[float] | None = None
    ) -> None:
        super().__init__()
        self.width = width
        self.normalize = Normalize(channels, [0.0] * channels if mean is None else mean, [1.0] * channels if std is None else std)
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) in [0, 1] -> (B, width)."""
        y = self.feature_map(x)
        return y.mean(dim=(2, 3)) if y.ndim == 4 else y

    def feature_map(self, x: Tensor) -> Tensor:
        """What the module gives: maps that are averaged into the vector, or the vector itself."""
        return self.module(self.normalize(x))


def wrap(
    module: nn.Module,
    channels: int,
    image_size: int,
    *,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
) -> Encoder:
    """Make an encoder of any network; its width is found by running it once on zeros.

    Args:
        module: maps (B, channels, image_size, image_size), or (B, channels) when image_size is 0, to (B, width), or to (B, width, h, w),
            which is then averaged over h and w. An `Encoder` is returned as it is, with a `spec` if it had none.
        channels: C of the input.
        image_size: side in pixels, 0 for vectors.
        mean, std: statistics of the data for a standardising layer in front; None for none.

    Raises:
        ValueError: the network does not take such an input, or gives something else; the message says what.
    """
    if channels < 1 or image_size < 0:
        raise ValueError(f"wrap needs channels >= 1 and image_size >= 0 (0 for vectors), got channels={channels}, image_size={image_size}")
    shape = (2, channels, image_size, image_size) if image_size else (2, channels)
    if isinstance(module, Encoder):
        encoder = module
    else:
        encoder = Wrapped(module, _found_width(module, shape), channels, _numbers(mean), _numbers(std))
    if "spec" not in vars(encoder):  # one that `build_encoder` made has its own
        vars(encoder)["spec"] = {"name": "own", "channels": channels, "image_size": image_size}
    return encoder


def input_channels(encoder: Encoder) -> int:
    """C of the images, or D of the vectors, that an encoder takes; for the decoders of methods that predict them.

    Raises:
        ValueError: the encoder does not say, since neither `build_encoder` nor `wrap` made it.
    """
    spec = vars(encoder).get("spec")
    if spec is None:
        name = type(encoder).__name__
        raise ValueError(f"{name} has no `spec` that says its channels; pass it through selfsup.models.wrap(encoder, channels, image_size)")
    return spec["channels"]


@torch.no_grad()
def _found_width(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Length of the vectors that the network makes of an input of that shape; leaves the network as it was."""
    name, first = type(module).__name__, next(module.parameters(), torch.zeros(()))
    modes = [(m, m.training) for m in module.modules()]
    module.eval()  # neither dropout nor the running statistics may notice
    try:
        y: Any = module(torch.zeros(shape, device=first.device))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise ValueError(f"{name} must take {shape} float tensors, but fails on one: {error}") from error
    finally:
        for m, training in modes:
            m.training = training
    if not isinstance(y, Tensor) or y.ndim not in (2, 4) or len(y) != shape[0] or not y.is_floating_point():
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{name} must give float vectors ({shape[0]}, width) or maps ({shape[0]}, width, h, w) for {shape}, got {got}")
    return y.shape[1]


def _of_text(name: str, channels: int, text: Mapping[str, Any], pool: Any, *, of_words: bool) -> Encoder:
    from selfsup.models.text import TextTransformer, text_encoder
    from selfsup.models.word_table import WordTable

    made: Encoder
    if of_words:
        made = WordTable(int(name.removeprefix("words_")), channels, [text["pad"], text["start"], text["end"]])
    else:
        made = text_encoder(name, channels, text)
    vars(made)["spec"] = {"name": name, "channels": channels, "image_size": 0, "text": dict(text)}
    if isinstance(made, TextTransformer):
        made.set_pool(pool)
    return made
