"""Stacks of sigmoid layers: the formula, what each layer is given, and sizes that are refused."""

import pytest
import torch

from selfsup.models import build_encoder
from selfsup.models.stack import Stack, TiedDecoder, only_stack


def test_a_layer_is_s_of_w_x_plus_b() -> None:
    torch.manual_seed(0)
    stack = Stack(channels=3, image_size=5, width=7, depth=2, mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0]).double()
    x = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    h = ((x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)).reshape(4, 75)
    steps = [h]
    for layer in stack.linears:
        steps.append(1 / (1 + torch.exp(-(steps[-1] @ layer.weight.T + layer.bias))))
    torch.testing.assert_close(stack(x), steps[2], rtol=1e-6, atol=1e-6)
    assert torch.equal(stack.below(0, x), x)
    torch.testing.assert_close(stack.below(1, x), steps[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(stack.up(1, steps[1]), steps[2], rtol=1e-6, atol=1e-6)
    assert stack(x).shape == (4, 7)


def test_the_named_one_has_the_papers_three_layers_of_1000() -> None:
    for channels, size, inputs in ((1, 28, 784), (6, 33, 6 * 33 * 33), (9, 0, 9)):
        stack = only_stack(build_encoder("stack", channels=channels, image_size=size), "it needs")
        assert [tuple(layer.weight.shape) for layer in stack.linears] == [(1000, inputs), (1000, 1000), (1000, 1000)]
        assert stack.width == 1000
        x = torch.rand(2, channels, size, size) if size else torch.rand(2, channels)
        assert stack(x).shape == (2, 1000)
    bound = 1000**-0.5
    weight = stack.linears[1].weight.detach()
    assert 0.99 * bound < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.01)  # uniform


def test_a_tied_decoder_has_biases_of_its_own_only() -> None:
    stack = Stack(channels=4, width=3, depth=2)
    decoder = TiedDecoder(stack.linears, stack.shape)
    shared = {id(p) for p in stack.parameters()}
    assert [tuple(p.shape) for p in decoder.parameters() if id(p) not in shared] == [(4,), (3,)]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="at least 1 layer of at least 1 unit, got depth=0, width=1000"):
        Stack(channels=3, depth=0)
    with pytest.raises(ValueError, match=r"expected \(B, 1, 8, 8\), got \(2, 1, 9, 9\)"):
        Stack(channels=1, image_size=8, width=2)(torch.rand(2, 1, 9, 9))
    with pytest.raises(ValueError, match=r"it needs fully connected sigmoid layers, got encoder small; choose --encoder stack"):
        only_stack(build_encoder("small", channels=1, image_size=16), "it needs")
