"""What the monitors watch of a method is what its loss compares: neither the encoder's own vectors, nor a predictor's, nor a teacher's."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.methods import method_class
from selfsup.models import build_encoder

HEADS = dict.fromkeys(("simclr", "supcon", "moco", "byol", "simsiam", "barlow_twins", "instance_discrimination"), "projector")
HEADS["vicreg"] = "expander"


def made(name: str, **options: float) -> tuple[Any, Tensor]:
    method: Any = method_class(name)(build_encoder("small", channels=3, image_size=16), image_size=16, **options).eval()
    with torch.no_grad():
        for p in method.parameters():
            if not p.requires_grad:  # a teacher begins as a copy of the student
                p.add_(0.1 * torch.randn_like(p))
    return method, torch.rand(5, 3, 16, 16)


@torch.no_grad()
@pytest.mark.parametrize("name", HEADS)
def test_it_is_the_projection(name: str) -> None:
    method, x = made(name)
    torch.testing.assert_close(method.compared(x), getattr(method, HEADS[name])(method.encoder(x)))


@torch.no_grad()
def test_of_swav_it_is_the_softmax_over_prototypes() -> None:
    method, x = made("swav", temperature=0.3)
    z = F.normalize(method.projector(method.encoder(x)), dim=1)
    torch.testing.assert_close(method.compared(x), F.softmax(z @ method.prototypes.T / 0.3, dim=1))


@torch.no_grad()
def test_of_dino_it_is_what_the_teacher_says() -> None:
    method, x = made("dino", teacher_temperature=0.05)
    method.centre.normal_()
    logits = method.teacher_head(method.encoder(x)) - method.centre
    torch.testing.assert_close(method.compared(x), F.softmax(logits / 0.05, dim=1))
