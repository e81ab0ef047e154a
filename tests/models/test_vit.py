"""ViT: parameter counts of timm's networks without their head, attention by its formula, tokens that may be dropped."""

import math

import pytest
import torch

from selfsup.models.vit import Block, ViT, sincos_positions


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


def test_pool_mean_has_no_class_token_and_averages() -> None:
    torch.manual_seed(0)
    built = ViT("tiny", image_size=16, pool="mean").eval()
    after_built = torch.rand(())
    torch.manual_seed(0)
    changed = ViT("tiny", image_size=16).eval()
    changed.drop_class_token()
    assert torch.equal(torch.rand(()), after_built)  # the same network from the same seed, however it came to be
    assert built.state_dict().keys() == changed.state_dict().keys()
    assert "class_token" not in built.state_dict()
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(built(x), changed(x))
    tokens = built.forward_tokens(built.patches(x))
    assert tokens.shape == (2, 16, 192)
    torch.testing.assert_close(built(x), tokens.mean(dim=1))
    before = changed.positions
    changed.drop_class_token()
    assert changed.positions is before  # once is enough


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_absent_tokens_are_looked_at_by_none(pool: str) -> None:
    torch.manual_seed(0)
    net = ViT("tiny", image_size=16, pool=pool).eval()
    x = net.patches(torch.rand(2, 3, 16, 16))
    absent = torch.zeros(2, 6, dtype=torch.bool)
    absent[0, 4:] = True
    together = net.forward_tokens(x[:, :6], absent)
    extra = int(pool == "class")
    torch.testing.assert_close(together[0, : 4 + extra], net.forward_tokens(x[:1, :4])[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1], net.forward_tokens(x[1:, :6])[0], rtol=1e-4, atol=1e-5)
    assert together.isfinite().all()


def test_smaller_images_lie_between_the_learned_positions() -> None:
    torch.manual_seed(0)
    net = ViT("tiny", image_size=32).eval()
    x = torch.rand(2, 3, 16, 16)
    assert net(x).shape == (2, 192)
    learned = net.positions[:, 1:].detach().transpose(1, 2).view(1, 192, 8, 8)
    resized = torch.nn.functional.interpolate(learned, size=(4, 4), mode="bicubic").flatten(2).transpose(1, 2)
    plain = net.embed_patch(net.normalize(x)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(net.patches(x) - plain, resized.expand(2, -1, -1), rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert net.patches(x).dtype == torch.float32
    for wrong in ((2, 3, 18, 18), (2, 3, 16, 12), (2, 3, 36, 36)):
        with pytest.raises(ValueError, match=r"smaller squares of whole patches"):
            net(torch.rand(wrong))


def test_sines_and_cosines_by_numbers() -> None:
    positions = sincos_positions(3, 8)  # speeds 1 and 1/100
    row, column = 2, 1
    half = [[math.sin(p), math.sin(p / 100), math.cos(p), math.cos(p / 100)] for p in (column, row)]
    torch.testing.assert_close(positions[row * 3 + column], torch.tensor(half[0] + half[1]))
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        sincos_positions(3, 6)
