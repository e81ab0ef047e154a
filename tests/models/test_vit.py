"""ViT: parameter counts of timm's networks without their head, attention by its formula, tokens that may be dropped."""

import math

import pytest
import torch

from selfsup.models.vit import Block, ViT


# timm's vit_tiny, small and base_patch16_224 with num_classes=0.
@pytest.mark.parametrize(("size", "parameters", "width"), [("tiny", 5_524_416, 192), ("small", 21_665_664, 384), ("base", 85_798_656, 768)])
def test_parameters_are_the_known_ones(size: str, parameters: int, width: int) -> None:
    net = ViT(size)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net.width == width


@pytest.mark.parametrize(("image_size", "patch", "grid"), [(28, 4, 7), (32, 4, 8), (64, 8, 8), (96, 8, 12), (224, 16, 14)])
def test_the_image_size_chooses_the_patch(image_size: int, patch: int, grid: int) -> None:
    net = ViT("tiny", image_size=image_size)
    assert net.patch_size == patch
    assert net.positions.shape == (1, 1 + grid**2, 192)
    assert ViT("tiny", image_size=image_size, patch_size=image_size // 2).positions.shape == (1, 5, 192)


def test_attention_is_equation_7_of_the_appendix() -> None:
    torch.manual_seed(0)
    block = Block(12, heads=3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    q, k, v = block.qkv(x).split(12, dim=-1)
    heads = []
    for h in range(3):
        mine = slice(4 * h, 4 * h + 4)
        similarity = torch.einsum("bid,bjd->bij", q[..., mine], k[..., mine]) / math.sqrt(4)
        heads.append(similarity.softmax(dim=-1) @ v[..., mine])
    torch.testing.assert_close(block.attention(x), block.out(torch.cat(heads, dim=-1)))


def test_a_block_is_equations_2_and_3() -> None:
    torch.manual_seed(0)
    block = Block(8, heads=2).double()
    torch.nn.init.normal_(block.norm1.weight)
    x = 3 * torch.randn(2, 5, 8, dtype=torch.float64) + 1
    z = x + block.attention(torch.nn.functional.layer_norm(x, (8,), block.norm1.weight, block.norm1.bias, 1e-6))
    hidden = block.up(torch.nn.functional.layer_norm(z, (8,), eps=1e-6))
    gelu = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(block(x), z + block.down(gelu))


def test_a_block_adds_to_its_input() -> None:
    block = Block(8, heads=2)
    x = torch.randn(2, 3, 8) + 5
    for layer in (block.out, block.down):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    assert torch.equal(block(x), x)  # pre-norm: nothing is normalised on the way through


def test_forward_is_the_class_token_of_all_patches() -> None:
    torch.manual_seed(0)
    net = ViT("tiny", channels=2, image_size=16).eval()
    x = torch.rand(2, 2, 16, 16)
    tokens = net.patches(x)
    assert tokens.shape == (2, 16, 192)
    contextual = net.forward_tokens(tokens)
    assert contextual.shape == (2, 17, 192)
    assert torch.equal(net(x), contextual[:, 0])
    # A patch is its own pixels times the kernel, and its place in reading order.
    pixels = net.normalize(x)[1, :, 4:8, 8:12]  # second row, third column
    by_hand = torch.einsum("ocij,cij->o", net.embed_patch.weight, pixels) + net.embed_patch.bias + net.positions[0, 1 + 1 * 4 + 2]
    torch.testing.assert_close(tokens[1, 6], by_hand)


def test_positions_go_with_their_patches_and_order_does_not_matter() -> None:
    torch.manual_seed(0)
    net = ViT("tiny", image_size=16).eval()
    x = torch.rand(1, 3, 16, 16)
    tokens, order = net.patches(x), torch.randperm(16)
    torch.testing.assert_close(net.forward_tokens(tokens[:, order])[:, 0], net(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net(x.flip(3)), net(x), atol=1e-3)  # but where a patch lies does
    some = net.forward_tokens(tokens[:, order[:4]])
    assert some.shape == (1, 5, 192)
    assert not torch.allclose(some[:, 0], net(x), atol=1e-3)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="size must be one of tiny, small, base, got 'huge'"):
        ViT("huge")
    with pytest.raises(ValueError, match="patch_size=5 needs an image_size that is a multiple of it, got 32; choose --image-size 30 or 35"):
        ViT("tiny", image_size=32, patch_size=5)
    with pytest.raises(ValueError, match=r"expected \(B, C, 16, 16\), got \(1, 3, 32, 32\)"):
        ViT("tiny", image_size=16)(torch.rand(1, 3, 32, 32))
