"""I-JEPA against section 3: targets, context, predictor, momentum, distance; and one toy problem it must solve."""

import copy

import pytest
import torch
import torch.nn.functional as F

from selfsup.engine.step import train_step
from selfsup.method import Batch
from selfsup.methods.ijepa import IJEPA, distance, padded_places
from selfsup.models import build_encoder
from selfsup.models.vit import ViT, sincos_positions


def ijepa(**options: float | str) -> IJEPA:
    torch.manual_seed(1)
    encoder = build_encoder("vit_tiny", channels=3, image_size=16)
    assert isinstance(encoder, ViT)
    encoder.blocks = encoder.blocks[:1]
    return IJEPA(encoder, **{"predictor_width": 32, "predictor_depth": 1} | options)


def shown(method: IJEPA, batch: int, seed: int = 0) -> Batch:
    raw = torch.randint(0, 256, (batch, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return method.views({"image": raw}, torch.Generator().manual_seed(seed))


def test_the_loss_is_that_of_section_3() -> None:
    """Image by image and block by block, without padding: contexts by themselves, one predictor pass for each block."""
    method = ijepa().eval().double()
    with torch.no_grad():
        for p in method.encoder.parameters():  # another network than the context encoder
            p.add_(0.1 * torch.randn_like(p))
        for p in [*method.context_encoder.blocks.parameters(), *method.predictor.parameters()]:  # large, so that attention matters
            p.mul_(10)
    views = {name: x.double() if x.is_floating_point() else x for name, x in shown(method, 4).items()}
    f, teacher, g = method.context_encoder, method.encoder, method.predictor
    place = sincos_positions(4, 32).double()
    total, count, contexts = 0.0, 0, set()
    with torch.no_grad():
        for image, hidden, targets in zip(views["image"], views["hidden"], views["targets"], strict=True):
            s = teacher.forward_tokens(teacher.patches(image[None]))
            s = (s - s.mean(dim=-1, keepdim=True)) / (s.var(dim=-1, keepdim=True, correction=0) + 1e-5).sqrt()
            seen = (~hidden).nonzero()[:, 0]
            contexts.add(len(seen))
            context = f.forward_tokens(f.patches(image[None])[:, seen])
            for block in targets:
                asked = block.nonzero()[:, 0]
                tokens = torch.cat([g.embed(context) + place[seen], g.mask_token[0] + place[asked]], dim=1)
                for layer in g.blocks:
                    tokens = layer(tokens)
                predicted = g.predict(g.norm(tokens))[:, len(seen) :]
                total += float((predicted - s[:, asked]).square().sum())
                count += predicted.numel()
    assert len(contexts) > 1  # of different sizes, so that padding was tested
    torch.testing.assert_close(method.loss(views).detach(), torch.tensor(total / count, dtype=torch.float64), rtol=1e-9, atol=0)


def test_distances_by_numbers() -> None:
    predicted, target = torch.tensor([0.5, -3.0]), torch.zeros(2)
    assert float(distance(predicted, target, "l2")) == (0.25 + 9) / 2
    assert float(distance(predicted, target, "smooth_l1")) == (0.125 + 2.5) / 2
    d = torch.randn(50, dtype=torch.float64)
    expected = sum(float(x * x / 2 if abs(x) < 1 else abs(x) - 0.5) for x in d) / 50
    huber = distance(d, torch.zeros_like(d), "smooth_l1")
    torch.testing.assert_close(huber, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


def test_training_moves_the_copy_as_the_paper_says() -> None:
    """Plain gradient descent for the context encoder and predictor; the targets' encoder follows by a share that climbs in a line."""
    method = ijepa(momentum=0.8)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        teacher = [p.clone() for p in method.encoder.parameters()]
        student = [p.detach().clone() for p in method.context_encoder.parameters()]
        train_step(method, [shown(method, 3, step)], {"main": optimizer})
        for p, before in zip(method.encoder.parameters(), teacher, strict=True):
            assert torch.equal(p, before)
        moved = [p for p, before in zip(method.context_encoder.parameters(), student, strict=True) if not torch.equal(p, before)]
        assert len(moved) == len(student) - 1  # all but the positions
        method.after_step((step + 1) / 4)
        share = 0.8 + 0.2 * (step + 1) / 4
        for p, t, s in zip(method.encoder.parameters(), teacher, method.context_encoder.parameters(), strict=True):
            torch.testing.assert_close(p, share * t + (1 - share) * s.detach())
    before = [p.clone() for p in method.encoder.parameters()]
    method.after_step(1.0)
    assert all(torch.equal(p, b) for p, b in zip(method.encoder.parameters(), before, strict=True))


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.8), (0.5, 0.9), (1.0, 1.0)])
def test_the_copy_follows_and_is_not_followed(progress: float, share: float) -> None:
    method = ijepa(momentum=0.8)
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.fill_(1.0)
        for p in method.context_encoder.parameters():
            p.fill_(2.0)
    method.after_step(progress)
    for p in method.encoder.parameters():
        torch.testing.assert_close(p, torch.full_like(p, 2 - share))
    assert all(bool((p == 2).all()) for p in method.context_encoder.parameters())


def test_the_context_is_what_views_show_and_nothing_else() -> None:
    """Patches that are neither shown nor asked for, outside of the context's block, say nothing."""
    method = ijepa().eval()
    views = shown(method, 2)
    outside = ~views["targets"].any(dim=1)
    last = outside.int().cumsum(dim=1).argmax(dim=1)
    views["hidden"][torch.arange(2), last] = True  # one more than the targets
    changed = dict(views, image=views["image"].clone())
    side, grid = method.context_encoder.patch_size, method.context_encoder.grid
    for row, patch in enumerate(last.tolist()):
        top, left = patch // grid * side, patch % grid * side
        changed["image"][row, :, top : top + side, left : left + side] = 0.5
    with pytest.MonkeyPatch.context() as patched:
        fixed = method._targets(views["image"], torch.arange(grid**2).expand(2, 1, -1))  # the copy sees all patches: it is kept out of this
        patched.setattr(
            method,
            "_targets",
            lambda _, which: (
                fixed[:, 0].gather(1, which.flatten(1)[..., None].expand(-1, -1, fixed.shape[-1])).unflatten(1, which.shape[1:])
            ),
        )
        torch.testing.assert_close(method.loss(changed), method.loss(views))


def test_gradient_reaches_the_context_encoder_and_the_predictor_only() -> None:
    method = ijepa()
    method.loss(shown(method, 3)).backward()
    for name, p in method.named_parameters():
        trained = not name.startswith("encoder.") and not name.endswith("encoder.positions")
        assert p.requires_grad == trained, name
        assert (p.grad is not None and bool(p.grad.any())) == trained, name


def test_the_context_does_not_see_the_targets_and_the_copy_sees_everything() -> None:
    method = ijepa().eval()
    views = shown(method, 2)
    of_context, of_targets = [], []
    method.predictor.register_forward_pre_hook(lambda _m, args: of_context.append([x.clone() for x in args]))
    method.encoder.norm.register_forward_hook(lambda _m, _a, out: of_targets.append(out))
    pixels = views["hidden"].view(2, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    with torch.no_grad():
        method.loss(views)
        method.loss({**views, "image": torch.where(pixels, torch.rand_like(views["image"]), views["image"])})
        method.loss({**views, "image": torch.where(pixels, views["image"], torch.rand_like(views["image"]))})
    present = ~of_context[0][2]
    assert torch.equal(of_context[1][0][present], of_context[0][0][present])
    assert not torch.allclose(of_context[2][0][present], of_context[0][0][present])
    assert of_targets[0].shape == (2, 16, 192)
    assert not torch.allclose(of_targets[1], of_targets[0])
    # Each block is predicted by itself: another second block leaves the first one's prediction alone.
    context, where, absent, which = of_context[0]
    other = torch.cat([which[:, :1], which[:, 2:], which[:, 1:2]], dim=1)
    torch.testing.assert_close(method.predictor(context, where, absent, other)[:, 0], method.predictor(context, where, absent, which)[:, 0])


def test_filling_a_row_changes_nothing() -> None:
    shown_, absent = padded_places(torch.tensor([[True, False, True, True], [False, True, False, False]]))
    assert shown_[0].tolist() == [0, 2, 3]
    assert int(shown_[1, 0]) == 1
    assert absent.tolist() == [[False, False, False], [False, True, True]]
    method = ijepa().eval()
    views = shown(method, 6)
    one = [method.loss({name: value[i : i + 1] for name, value in views.items()}) for i in range(6)]
    torch.testing.assert_close(torch.stack(one).mean(), method.loss(views), rtol=1e-4, atol=1e-6)


def test_targets_are_normalised_or_not() -> None:
    method, views = ijepa().eval(), None
    views = shown(method, 2)
    which = views["targets"].flatten(0, 1).nonzero()[:, 1].view(2, 4, -1)
    targets = method._targets(views["image"], which)
    torch.testing.assert_close(targets.mean(dim=-1), torch.zeros(which.shape), rtol=0, atol=1e-5)
    torch.testing.assert_close(targets.var(dim=-1, correction=0), torch.ones(which.shape), rtol=0, atol=1e-3)
    plain = ijepa(normalised_target=False).eval()
    tokens = plain.encoder.forward_tokens(plain.encoder.patches(views["image"]))
    torch.testing.assert_close(plain._targets(views["image"], which)[1, 2, 0], tokens[1, int(which[1, 2, 0])])


def test_the_copy_is_what_is_kept_and_gives_the_mean_of_its_patches() -> None:
    method, x = ijepa(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        for p in method.context_encoder.parameters():
            p.add_(0.1)
    method.eval()
    tokens = method.encoder.forward_tokens(method.encoder.patches(x))
    assert tokens.shape == (2, 16, 192)  # no class token
    torch.testing.assert_close(method.embed(x), tokens.mean(dim=1))
    assert not torch.allclose(method.embed(x), method.context_encoder(x))
    assert method.encoder.spec == {"name": "vit_tiny", "channels": 3, "image_size": 16, "pool": "mean"}


def test_the_recipe_and_views_of_the_paper() -> None:
    views = ijepa().views
    assert (views.blocks, views.target_scale, views.target_ratio, views.context_scale) == (4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0))
    assert (views.crop.look.scale, views.crop.look.flip, views.crop.look.jitter) == ((0.3, 1.0), 0.0, 0.0)
    assert IJEPA.recipe.encoder == "vit_tiny"


def test_it_learns_to_predict_what_is_hidden() -> None:
    """Images of one colour each and noise: the hidden block's meaning follows from the context, and the images stay apart."""
    method = ijepa(momentum=0.9, predictor_width=64)
    optimizers = {"main": torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-3)}
    colours = torch.randint(40, 216, (16, 3, 1, 1))

    def batch() -> Batch:
        raw = (colours + 12 * torch.randn(16, 3, 16, 16)).round().clamp(0, 255).byte()
        return method.views({"image": raw}, torch.Generator().manual_seed(int(torch.randint(10**6, ()))))

    def explained() -> float:
        """Share of the targets' variance that the prediction explains, across images."""
        views = batch()
        seen: list[torch.Tensor] = []
        hook = method.predictor.register_forward_hook(lambda _m, args, out: seen.extend([out, args[3]]))
        with torch.no_grad():
            method.loss(views)
            target = method._targets(views["image"], seen[1])
        hook.remove()
        return 1 - float((seen[0] - target).square().mean() / (target - target.mean(dim=0)).square().mean())

    before = explained()
    for step in range(60):
        train_step(method, [batch()], optimizers)
        method.after_step(step / 60)
    after = explained()
    assert before < 0
    assert after > 0.5, f"{after:.2f} of the variance explained, {before:.2f} before"
    a, b = (F.normalize(z - z.mean(dim=0), dim=1) for z in (method.embed(batch()["image"]) for _ in range(2)))
    assert ((a @ b.T).argmax(dim=1) == torch.arange(16)).float().mean() > 0.8  # no collapse


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"ijepa hides patches.*must be a ViT, got small; choose --encoder vit_tiny"):
        IJEPA(build_encoder("small", channels=3, image_size=16))
    for options, message in [
        ({"blocks": 0}, "blocks must be at least 1.*got 0"),
        ({"largest_target": 0.5}, "largest_target <= 0.3"),
        ({"smallest_context": 0.5}, "0.75 <= smallest_context"),
        ({"momentum": 1.1}, "momentum must be between 0 and 1, got 1.1"),
        ({"predictor_width": 20}, "predictor_width must be a multiple of 32"),
    ]:
        with pytest.raises(ValueError, match=message):
            ijepa(**options)
    with pytest.raises(ValueError, match="at least 2 x 2 patches, got 4 pixels and patches of 4"):
        IJEPA(build_encoder("vit_tiny", channels=3, image_size=4))
    assert copy.deepcopy(ijepa()).encoder.pool == "mean"
