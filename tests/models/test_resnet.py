"""ResNet: parameter counts of torchvision's networks without their classifier, stems, initialisation."""

import pytest
import torch
from torch import nn

from selfsup.models.resnet import BasicBlock, Bottleneck, ResNet


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# torchvision's 11,689,512, 21,797,672 and 25,557,032, less a classifier of 1,000 classes.
@pytest.mark.parametrize(("depth", "parameters", "width"), [(18, 11_176_512, 512), (34, 21_284_672, 512), (50, 23_508_032, 2048)])
def test_parameters_are_those_of_table_1(depth: int, parameters: int, width: int) -> None:
    net = ResNet(depth)
    assert count(net) == parameters
    assert net.width == width
    small = ResNet(depth, image_size=32)
    assert count(small) == parameters - 64 * 3 * (7 * 7 - 3 * 3)
    assert count(ResNet(depth, channels=1)) == parameters - 64 * 2 * 7 * 7


def test_the_image_size_chooses_the_stem() -> None:
    def side(size: int, **kwargs: str) -> int:
        with torch.no_grad():
            return ResNet(18, image_size=size, **kwargs).eval().feature_map(torch.rand(1, 3, size, size)).shape[-1]

    assert [side(64), side(65), side(96)] == [64 // 8, 3, 96 // 32]
    assert [side(64, stem="imagenet"), side(96, stem="small")] == [2, 12]
    assert side(29) == 4  # odd sizes are rounded up three times


@pytest.mark.parametrize(("block", "planes"), [(BasicBlock, 64), (Bottleneck, 16)])
def test_a_block_with_zero_last_norm_is_its_shortcut(block: type, planes: int) -> None:
    torch.manual_seed(0)
    net = block(64, planes, stride=1)
    x = torch.rand(2, 64, 6, 6)
    assert not torch.equal(net(x), x)
    nn.init.zeros_(net.last_norm.weight)
    torch.testing.assert_close(net(x), x)


@pytest.mark.parametrize("depth", [18, 50])
def test_zero_last_norm_is_an_argument(depth: int) -> None:
    def zeros(net: ResNet) -> int:
        return sum(not bool(m.weight.any()) for m in net.modules() if isinstance(m, nn.BatchNorm2d))

    assert zeros(ResNet(depth, zero_last_norm=True)) == {18: 8, 50: 16}[depth]
    assert zeros(ResNet(depth)) == 0


def test_shortcuts_and_maps_add_up() -> None:
    """A block by hand, from its own layers in the order of figure 5; in-place activations must not reach the input."""
    torch.manual_seed(0)
    net = Bottleneck(32, 16, stride=2).double()
    x = torch.rand(2, 32, 8, 8, dtype=torch.float64) - 0.5
    kept = x.clone()
    y = net.norm1(net.conv1(x)).clamp(min=0)
    y = net.norm2(net.conv2(y)).clamp(min=0)
    by_hand = (net.last_norm(net.conv3(y)) + net.shortcut(x)).clamp(min=0)
    torch.testing.assert_close(net(x), by_hand)
    assert torch.equal(x, kept)
    assert by_hand.shape == (2, 64, 4, 4)


def test_signal_keeps_its_size_at_the_start() -> None:
    torch.manual_seed(0)
    net = ResNet(18, image_size=32)
    deviations = []
    for block in net.blocks:
        block.conv2.register_forward_hook(lambda _m, _i, out: deviations.append(float(out.detach().std())))
    net(torch.rand(8, 3, 32, 32))
    assert min(deviations) > 0.5, deviations
    assert max(deviations) < 2.5, deviations  # He's initialisation: about sqrt(2) for inputs of deviation 1


def test_channels_last_is_kept_to_the_last_map() -> None:
    net = ResNet(18, image_size=32).to(memory_format=torch.channels_last).eval()
    x = torch.rand(2, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = net.feature_map(x)
    assert features.dtype == torch.bfloat16
    assert features.is_contiguous(memory_format=torch.channels_last)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="depth must be one of 18, 34, 50, got 20"):
        ResNet(20)
