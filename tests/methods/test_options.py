"""No option is ignored: another value of it changes what is shown, what is lost, or what is learned."""

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from selfsup.engine.optim import make_optimizers
from selfsup.engine.step import train_step
from selfsup.method import Batch, Encoder, Recipe
from selfsup.methods import method_class
from selfsup.models import build_encoder, wrap

METHODS = (
    *("simclr", "moco", "byol", "simsiam", "barlow_twins", "vicreg", "swav", "dino", "mae", "ijepa", "supcon"),
    *("instance_discrimination", "cpc"),
)
GIVEN_BY_THE_DATA = {"encoder", "image_size", "items"}
STEPS = 4
# Small networks; and what else an option needs to matter.
SMALL = {
    "dino": {"local_views": 1, "local_size": 8},
    "swav": {"local_views": 1, "local_size": 8, "queue_size": 16, "prototypes": 8},
    "cpc": {"grid": 4, "nearest": 1, "farthest": 2},
    "instance_discrimination": {"queue_size": 16},
    "moco": {"queue_size": 16},
    "ijepa": {"predictor_depth": 1, "predictor_width": 32},
}
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("instance_discrimination", "noise"): {"dictionary": "bank"},
    ("instance_discrimination", "bank_momentum"): {"dictionary": "bank"},
    ("instance_discrimination", "proximal"): {"dictionary": "bank"},
    ("instance_discrimination", "queue_size"): {"dictionary": "queue"},
    ("instance_discrimination", "key_momentum"): {"dictionary": "queue"},
    ("dino", "first_teacher_temperature"): {"temperature_warmup": 0.5},
    ("dino", "temperature_warmup"): {"first_teacher_temperature": 0.02},
}


class Pooled(nn.Module):
    """A convolution and a mean, for images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x).relu().mean(dim=(2, 3))


def encoder_of(method: str, side: int) -> Encoder:
    if method in ("mae", "ijepa"):
        vit: Any = build_encoder("vit_tiny", channels=3, image_size=side)
        vit.blocks = vit.blocks[:1]
        return vit
    return wrap(Pooled(), 3, side)


def images(side: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shown = torch.randint(0, 256, (8, 3, side, side), generator=generator, dtype=torch.uint8)
    return {"image": shown, "index": torch.arange(8), "label": torch.tensor([0, 0, 1, 1, -1, -1, -1, -1])}


def trained(method: str, options: dict[str, Any]) -> list[Tensor]:
    """All that four steps show, lose and learn."""
    torch.manual_seed(0)
    cls = method_class(method)
    side = 32 if method == "ijepa" else 16  # its blocks are of whole patches of 4 pixels
    given = {"image_size": side, "items": 8}
    taken = inspect.signature(cls).parameters
    made: Any = cls(encoder_of(method, side), **{key: value for key, value in given.items() if key in taken}, **options)
    optimizers, generator, seen = make_optimizers(made, Recipe(optimizer="sgd", lr=1e-3)), torch.Generator(), []
    for step in range(STEPS):
        torch.manual_seed(step)
        made.progress = step / STEPS
        views = made.views(images(side), generator.manual_seed(20 + step))
        seen += [*views.values(), *train_step(made, [views], optimizers).values()]
        made.after_step((step + 1) / STEPS)
    return [*seen, *(value.clone() for value in made.state_dict().values())]


def others(value: Any, hint: Any) -> Iterator[Any]:
    """Other values that an option might take, and some that it might not."""
    literals = [a for part in (hint, *get_args(hint)) if get_origin(part) is Literal for a in get_args(part)]
    if literals:
        yield from (x for x in literals if x != value)
    elif isinstance(value, bool):
        yield not value
    elif value is None:
        yield from (8, 4, 1)
    elif isinstance(value, int):
        yield from (2 * value, value + 1, value - 1)
    else:
        yield from (x for x in (0.5 * value, 1.25 * value, round(1.5 * value, 6), 0.5, 0.75, 0.9) if x != value)


def options_of(method: str) -> list[str]:
    return [name for name in inspect.signature(method_class(method)).parameters if name not in GIVEN_BY_THE_DATA]


@pytest.mark.parametrize(("method", "option"), [(m, o) for m in METHODS for o in options_of(m)])
def test_an_option_is_not_ignored(method: str, option: str) -> None:
    cls = method_class(method)
    beside = SMALL.get(method, {}) | BESIDE.get((method, option), {})
    default = beside.get(option, inspect.signature(cls).parameters[option].default)
    whole = trained(method, beside)
    tried = []
    for other in others(default, get_type_hints(cls.__init__)[option]):
        try:
            changed = trained(method, beside | {option: other})
        except ValueError:  # out of its range, or against another option
            continue
        tried.append(other)
        if len(whole) != len(changed) or not all(a.shape == b.shape and a.equal(b) for a, b in zip(whole, changed, strict=True)):
            return
    pytest.fail(f"{option} at {tried} does what it does at {default!r}")
