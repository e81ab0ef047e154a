"""Views as a whole: every operation with the drawn parameters in the drawn order, image by image, and the facts that training relies on."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.views import augment, colour
from selfsup.views.augment import Choice, Look, choose, draw
from selfsup.views.blur import gaussian_blur, kernel_size
from selfsup.views.crops import MultiCrop, RandomCrop, TwoCrops, clean

STEP = 1 / 255
ALL = Look(16, jitter=0.8, colours=(0.8, 0.8, 0.8, 0.2), gray=0.3, blur=0.5, solarize=0.4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(b: int, c: int = 3, h: int = 20, w: int = 20) -> Tensor:
    return torch.randint(0, 256, (b, c, h, w), dtype=torch.uint8, generator=seeded(9))


def one_view(image: Tensor, choice: Choice, i: int, look: Look) -> Tensor:
    """Image i by itself: cut, resize, flip, four colour operations in their order, grayscale, blur, solarize."""
    top, left, h, w = choice.box[i].tolist()
    part = image[None, :, top : top + h, left : left + w].float() / 255
    x = F.interpolate(part, size=(look.size, look.size), mode="bilinear", antialias=True)
    x = (x.flip(-1) if choice.flip[i] else x).transpose(0, 1)  # (C, 1, S, S)
    three = iter(range(3))
    for place in range(4 if choice.hue_at[i] < 4 else 0):
        if place == choice.hue_at[i]:
            if len(x) == 3:
                colour.shift_hue(x, choice.hue[i : i + 1])
        else:
            k = next(three)
            colour.blend(x, choice.factor[i : i + 1, k], choice.to_mean[i : i + 1, k], choice.to_gray[i : i + 1, k])
    if choice.gray[i] and len(x) == 3:
        x = colour.gray(x).expand(3, -1, -1, -1)
    if choice.blur[i]:
        x = gaussian_blur(x, choice.sigma[i : i + 1], kernel_size(look.size))
    if choice.solarize[i]:
        x = torch.where(x >= 0.5, 1 - x, x)
    return x[:, 0]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("chunk", [1, 7 * 5 * 16 * 16, 10**6], ids=["one by one", "a few", "together"])
def test_a_batch_of_views_is_each_view_by_itself(channels: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "CHUNK", chunk)
    batch = {"image": images(60, channels), "size": torch.randint(6, 21, (60, 2), generator=seeded(3))}
    views = draw(batch, ALL, seeded())
    choice = choose(batch["size"], channels, ALL, seeded())
    for i, image in enumerate(batch["image"]):
        torch.testing.assert_close(views[i], one_view(image, choice, i, ALL), rtol=0, atol=1e-4)


def test_drawn_parameters_have_the_documented_ranges_and_rates() -> None:
    look = Look(8, jitter=0.8, colours=(0.4, 1.5, 0.2, 0.1), gray=0.2, blur=0.5, sigma=(0.3, 1.7), solarize=0.1, flip=0.5)
    n = 20_000
    choice = choose(torch.full((n, 2), 8), 3, look, seeded())
    for drawn, rate in [(choice.flip, 0.5), (choice.hue_at < 4, 0.8), (choice.gray, 0.2), (choice.blur, 0.5), (choice.solarize, 0.1)]:
        assert drawn.float().mean().item() == pytest.approx(rate, abs=0.015)
    is_contrast, is_saturation = choice.to_mean != 0, choice.to_gray != 0
    assert (is_contrast.sum(1) == 1).all()
    assert (is_saturation.sum(1) == 1).all()
    is_brightness = ~is_contrast & ~is_saturation
    for which, low, high in [(is_brightness, 0.6, 1.4), (is_contrast, 0.0, 2.5), (is_saturation, 0.8, 1.2)]:
        factor = choice.factor[which]
        assert len(factor) == n
        for q in (0.0, 0.25, 0.5, 0.75, 1.0):
            assert factor.quantile(q).item() == pytest.approx(low + q * (high - low), abs=0.03 * (high - low))
    assert choice.hue.abs().max() <= 0.1
    assert choice.hue.min() < -0.099
    assert choice.sigma.min() >= 0.3
    assert choice.sigma.max() <= 1.7
    # All 24 orders of the four operations: places of hue, contrast and saturation.
    place = 9 * choice.hue_at + 3 * is_contrast.byte().argmax(1) + is_saturation.byte().argmax(1)
    counts = place[choice.hue_at < 4].unique(return_counts=True)[1]
    assert len(counts) == 24
    torch.testing.assert_close(counts / counts.sum(), torch.full((24,), 1 / 24), rtol=0, atol=0.006)


def test_equal_images_get_views_of_their_own() -> None:
    same = images(1).expand(8, -1, -1, -1)
    views = TwoCrops(16)({"image": same}, seeded())
    everything = torch.cat([views["first"], views["second"]]).flatten(1)
    distance = torch.cdist(everything, everything) + 10 * torch.eye(16)
    assert distance.min() > 0.1


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("size", [8, 33, 64])
def test_views_are_float_images_in_range_of_any_channel_count(channels: int, size: int) -> None:
    raw = images(5, channels, 40, 36)
    for views in (TwoCrops(size, solarize=0.5, blur=0.5), MultiCrop(size, 8, 2), RandomCrop(size)):
        for name, view in views({"image": raw}, seeded()).items():
            side = 8 if name.startswith("local") else size
            assert view.shape == (5, channels, side, side)
            assert view.dtype == torch.float32
            assert view.is_contiguous()
            assert view.min() >= 0
            assert view.max() <= 1
            assert view.std() > 0.02


def test_the_same_seed_gives_the_same_views_and_another_gives_others() -> None:
    views, batch = TwoCrops(16), {"image": images(6)}
    first = views(batch, seeded(1))
    torch.testing.assert_close(views(batch, seeded(1)), first, rtol=0, atol=0)
    assert (views(batch, seeded(2))["first"] - first["first"]).abs().max() > 0.1


def test_views_draw_from_their_generator_only_and_leave_the_batch_alone() -> None:
    batch = {"image": images(6), "label": torch.arange(6), "index": torch.arange(6) + 10, "size": torch.full((6, 2), 20)}
    before = {name: x.clone() for name, x in batch.items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for views in (TwoCrops(16), MultiCrop(16, 8), RandomCrop(16)):
        made = views(batch, seeded())
        assert made["label"] is batch["label"]
        assert made["index"] is batch["index"]
        assert "image" not in made or made["image"].dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(batch, before, rtol=0, atol=0)


def test_colours_are_changed_in_the_share_that_is_asked_for() -> None:
    """From a picture of one colour a crop is that colour, so that what differs was recoloured."""
    flat = torch.tensor([200, 120, 40], dtype=torch.uint8).view(1, 3, 1, 1).expand(4000, 3, 8, 8).contiguous()
    original = flat[:, :, :1, :1] / 255
    views = TwoCrops(8, jitter=0.3, gray=0.0)({"image": flat}, seeded())["first"]
    assert ((views - original).abs().amax((1, 2, 3)) > 1e-3).float().mean().item() == pytest.approx(0.3, abs=0.03)
    views = TwoCrops(8, jitter=0.0, gray=0.25)({"image": flat}, seeded())["first"]
    grey = (views.amax(1) - views.amin(1)).amax((1, 2)) < 1e-6
    assert grey.float().mean().item() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(views[~grey], original[~grey].expand_as(views[~grey]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_saturation_hue_and_gray_leave_other_than_rgb_alone(channels: int) -> None:
    batch = {"image": images(6, channels)}
    plain = TwoCrops(16, jitter=0.0, gray=0.0)(batch, seeded())
    coloured = TwoCrops(16, jitter=1.0, colours=(0.0, 0.0, 0.8, 0.4), gray=1.0)(batch, seeded())
    torch.testing.assert_close(coloured, plain, rtol=0, atol=1e-6)


def test_flips_mirror_half_of_the_views() -> None:
    ramp = torch.arange(0, 240, 30, dtype=torch.uint8).expand(2000, 1, 8, 8).contiguous()
    views = RandomCrop(8, scale=(1.0, 1.0))({"image": ramp}, seeded())["image"]
    rising = views[:, 0, 0, -1] > views[:, 0, 0, 0]
    assert rising.float().mean().item() == pytest.approx(0.5, abs=0.03)
    views = RandomCrop(8, flip=0.0)({"image": ramp}, seeded())["image"]
    assert (views[:, 0, 0, -1] > views[:, 0, 0, 0]).all()


def test_each_view_may_have_settings_of_its_own() -> None:
    byol = TwoCrops(40, colours=(0.4, 0.4, 0.2, 0.1), blur=(1.0, 0.1), solarize=(0.0, 0.2))
    assert (byol.first.blur, byol.second.blur, byol.first.solarize, byol.second.solarize) == (1.0, 0.1, 0.0, 0.2)
    white = torch.full((50, 3, 40, 40), 255, dtype=torch.uint8)
    only_solarize = TwoCrops(40, jitter=0.0, gray=0.0, blur=0.0, solarize=(0.0, 1.0))({"image": white}, seeded())
    assert (only_solarize["first"] > 0.99).all()
    assert (only_solarize["second"] < 0.01).all()


def test_defaults_are_those_of_the_paper() -> None:
    look = TwoCrops(224, 0.5).first
    assert look.colours == (0.4, 0.4, 0.4, 0.1)
    assert (look.jitter, look.gray, look.blur, look.sigma, look.scale, look.solarize) == (0.8, 0.2, 0.5, (0.1, 2.0), (0.08, 1.0), 0.0)
    assert TwoCrops(32).first.blur == 0.0
    assert list(MultiCrop(16, 8, 2)({"image": images(1)}, seeded())) == ["global_0", "global_1", "local_0", "local_1"]


def test_local_views_show_less_than_global_ones() -> None:
    """The range of a ramp that a crop shows is its width."""
    ramp = torch.arange(200, dtype=torch.uint8).expand(300, 1, 200, 200).contiguous()
    crops = MultiCrop(16, 16, 1, jitter=0.0, blur=(0.0, 0.0, 0.0), solarize=(0.0, 0.0, 0.0))
    views = crops({"image": ramp}, seeded())
    share = {name: ((x.amax((1, 2, 3)) - x.amin((1, 2, 3))) * 255 / 200).square() for name, x in views.items()}
    assert share["local_0"].max() < 0.4 * 4 / 3
    assert share["global_1"].min() > 0.4 * 3 / 4 * 0.8  # the outermost pixels are averages: a little less than the box


def test_autocast_around_views_changes_nothing() -> None:
    views, batch = TwoCrops(16, blur=0.5), {"image": images(6)}
    expected = views(batch, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(views(batch, seeded()), expected, rtol=0, atol=0)


def test_clean_is_the_central_square() -> None:
    raw = images(3, 3, 30, 50)
    middle = raw[:, :, :, 10:40].float() / 255
    torch.testing.assert_close(clean({"image": raw}, 30), middle)
    small = F.interpolate(middle, size=(12, 12), mode="bilinear", antialias=True)
    torch.testing.assert_close(clean({"image": raw}, 12), small)
    vectors = torch.randn(3, 5)
    assert clean({"vector": vectors}, 0) is vectors


@pytest.mark.parametrize("canvas", [60, 300])
def test_clean_does_not_depend_on_the_canvas(canvas: int) -> None:
    raw = images(1, 3, 30, 50)
    padded = torch.full((2, 3, canvas, canvas), 255, dtype=torch.uint8)
    padded[0, :, :30, :50] = raw[0]
    made = clean({"image": padded, "size": torch.tensor([[30, 50], [canvas, 7]])}, 24)
    torch.testing.assert_close(made[:1], clean({"image": raw}, 24), rtol=0, atol=1e-5)
    assert (made[1] > 0.99).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r'a batch with "image".*got \[\'vector\'\]'):
        TwoCrops(8)({"vector": torch.randn(2, 3)}, seeded())
    with pytest.raises(ValueError, match=r"uint8, 0 to 255, got \(2, 3, 8, 8\) torch.float32"):
        TwoCrops(8)({"image": torch.rand(2, 3, 8, 8)}, seeded())
    with pytest.raises(ValueError, match=r"gray is a probability and must be in \[0, 1\], got 1.5"):
        TwoCrops(8, gray=1.5)
    with pytest.raises(ValueError, match=r"hue at most 0\.5 turns"):
        TwoCrops(8, colours=(0.1, 0.1, 0.1, 0.6))
    with pytest.raises(ValueError, match="scale must be two fractions"):
        RandomCrop(8, scale=(0.5, math.inf))
    with pytest.raises(ValueError, match="side must be at least 1 pixel, got 0"):
        RandomCrop(0)
    with pytest.raises(ValueError, match="local views must be at least 0, got -1"):
        MultiCrop(8, 8, -1)
