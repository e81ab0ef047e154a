"""PixelCNN: what a code may see and does see, and the exact copy, which must not differ by one bit between its two ways."""

import pytest
import torch

from selfsup.models.pixelcnn import LOGIT, ExactPixelCNN, PixelCNN


def network(codes: int = 7, planes: int = 6, layers: int = 4) -> PixelCNN:
    net = PixelCNN(codes, planes, layers)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)  # far from the linear part of tanh
    return net


def test_a_code_sees_exactly_those_before_it() -> None:
    """Nothing from itself or later ones, something from all earlier ones in reach: no blind spot."""
    net, i, j = network(layers=5), 4, 3
    codes = torch.randint(7, (6, 7))
    changed = codes.repeat(42, 7, 1, 1)  # (place, other code, row, column)
    for place in range(42):
        changed[place, :, place // 7, place % 7] = torch.arange(7)
    with torch.no_grad():
        logits = net(changed.flatten(0, 1))[:, :, i, j].view(42, 7, 7)
    seen = (logits - logits[:, :1]).abs().sum(dim=(1, 2))
    before = torch.arange(42) < 7 * i + j
    assert bool((seen[~before] == 0).all())
    assert bool((seen[before] > 0).all())


@pytest.mark.parametrize(("height", "width", "layers"), [(1, 1, 1), (1, 5, 2), (5, 1, 3), (4, 6, 4)])
def test_the_exact_copy_is_one_whether_all_at_once_or_step_by_step(height: int, width: int, layers: int) -> None:
    net = network(layers=layers)
    exact, codes = ExactPixelCNN(net), torch.randint(7, (5, height, width))
    at_once = exact.logits(codes)
    unwritten = torch.zeros_like(codes)
    for i, j, logits in exact.walk(unwritten):
        assert torch.equal(logits, at_once[:, i, j])
        unwritten[:, i, j] = codes[:, i, j]
    assert torch.equal(unwritten, codes)
    assert torch.equal(exact.logits(codes[3:4]), at_once[3:4])
    with torch.no_grad():
        error = (at_once / LOGIT - net(codes).permute(0, 2, 3, 1)).abs().max()
    assert float(error) < 0.05, "it is no copy of the network"


def test_whole_numbers_stay_whole_where_weights_and_sums_are_large() -> None:
    net = network(planes=16)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1000)
    exact, codes = ExactPixelCNN(net), torch.randint(7, (4, 5, 5))
    expected = exact.logits(codes)
    for i, j, logits in exact.walk(codes):
        assert torch.equal(logits, expected[:, i, j])
    turned = exact.layers[0]["vertical"][0]
    assert torch.equal(turned, turned.round())
