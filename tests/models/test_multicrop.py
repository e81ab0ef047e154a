import pytest
import torch

from selfsup.method import Encoder
from selfsup.methods import method_class
from selfsup.models import build_encoder, wrap
from selfsup.models.multicrop import crop_side, crop_sizes

METHODS = ("barlow_twins", "byol", "dino", "instance_discrimination", "moco", "simclr", "simsiam", "supcon", "swav", "vicreg")


def encoder(name: str = "small", image_size: int = 32) -> Encoder:
    return build_encoder(name, channels=3, image_size=image_size)


@pytest.mark.parametrize(("image_size", "side"), [(224, 168), (64, 48), (40, 30), (32, 24), (28, 24), (24, 24), (16, 16), (8, 8)])
def test_crops_have_three_quarters_of_the_side_but_small_images_all_of_it(image_size: int, side: int) -> None:
    assert crop_side(encoder(), image_size, None) == side
    assert crop_side(encoder("resnet18"), image_size, None) == side


def test_a_network_that_may_be_made_for_one_size_sees_crops_of_that_size() -> None:
    fixed = wrap(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4)), 3, 32)
    assert crop_side(fixed, 32, None) == 32
    assert crop_side(encoder("vit_tiny"), 32, None) == 32
    assert crop_side(encoder("dcgan"), 32, None) == 32


def test_what_is_asked_for_is_taken_or_refused() -> None:
    assert crop_side(encoder(), 32, 20) == 20
    assert crop_side(encoder("vit_tiny"), 32, 20) == 20
    for wrong in (0, 33):
        with pytest.raises(ValueError, match=f"crop_size must be 1 to image_size, 32, got {wrong}"):
            crop_side(encoder(), 32, wrong)
    with pytest.raises(ValueError, match="a multiple of the vit's patch of 4 pixels, got 22"):
        crop_side(encoder("vit_tiny"), 32, 22)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_draws_crops_of_that_side_and_embeds_whole_images(method: str) -> None:
    raw = {"image": torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), "index": torch.arange(4)}
    for options, side in (({}, 24), ({"crop_size": 16}, 16)):
        made = method_class(method)(encoder(), image_size=32, **options)
        views = made.views(raw, torch.Generator().manual_seed(0))
        assert {x.shape[-2:] for x in views.values() if x.ndim == 4} == {(side, side)}
        assert torch.isfinite(made.loss(views))
        assert made.embed(torch.rand(2, 3, 32, 32)).shape == (2, 256)


@pytest.mark.parametrize("method", ["dino", "swav"])
@pytest.mark.parametrize(("image_size", "options", "sides"), [
    (32, {}, [24, 24]),
    (64, {}, [48, 48]),
    (96, {}, [72, 72, 36, 36, 36, 36]),
    (32, {"local_views": 1}, [24, 24, 12]),
    (96, {"local_views": 0}, [72, 72]),
])  # fmt: skip
def test_small_crops_are_drawn_where_large_ones_are_large(method: str, image_size: int, options: dict[str, int], sides: list[int]) -> None:
    looks = method_class(method)(encoder(), image_size=image_size, **options).views.looks
    assert [look.size for look in looks.values()] == sides


def test_what_is_asked_for_stands_beside_what_is_chosen() -> None:
    assert crop_sizes(encoder(), 64, 63, None, None) == (63, 31, 0)
    assert crop_sizes(encoder(), 64, 64, None, None) == (64, 32, 4)
    assert crop_sizes(encoder(), 64, 63, 20, 3) == (63, 20, 3)
    assert crop_sizes(encoder(), 64, 64, 20, 0) == (64, 20, 0)
    assert crop_sizes(encoder("vit_tiny", 28), 28, None, None, 1) == (28, 12, 1)  # three patches of 4
