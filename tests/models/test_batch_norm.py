"""Running statistics of what a network is to see, not of what it learns from."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from selfsup.methods.jigsaw import Jigsaw
from selfsup.methods.relative_position import RelativePosition
from selfsup.models import build_encoder


@pytest.mark.parametrize(("kind", "options"), [(Jigsaw, {"permutations": 10}), (RelativePosition, {})])
def test_running_statistics_of_methods_on_tiles_are_those_of_whole_images(kind: Any, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    method = kind(build_encoder("small", channels=3, image_size=16), image_size=16, **options)
    twin = copy.deepcopy(method.encoder)
    raw = {"image": torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)}
    views = method.views(raw, torch.Generator().manual_seed(0))
    loss = method.loss(views)
    twin(views["image"])
    for (name, mine), whole in zip(method.encoder.named_buffers(), twin.buffers(), strict=True):
        assert mine.equal(whole), name
    for norm in (m for m in method.encoder.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean += 5
    assert method.loss(views).equal(loss)  # in training they are not used
    before = [x.clone() for x in method.encoder.buffers()]
    method.eval().loss(views)
    assert all(map(torch.equal, before, method.encoder.buffers()))
