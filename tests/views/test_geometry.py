"""Crops against torch's own resize of the cut-out box, and boxes against torchvision's documented distribution."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.views import geometry
from selfsup.views.geometry import central_boxes, crop, random_boxes

STEP = 1 / 255


def images(b: int, c: int, h: int, w: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (b, c, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def reference(image: Tensor, box: list[int], side: int, flip: bool) -> Tensor:
    """Cut, resize with antialiasing, mirror: one image at a time."""
    top, left, height, width = box
    part = image[None, :, top : top + height, left : left + width].double() / 255
    view = F.interpolate(part, size=(side, side), mode="bilinear", antialias=True, align_corners=False)[0].float()
    return view.flip(-1) if flip else view


BOXES = [[0, 0, 24, 30], [0, 0, 1, 1], [23, 29, 1, 1], [3, 5, 7, 20], [10, 0, 14, 9], [0, 29, 24, 1], [2, 2, 16, 16], [5, 6, 11, 13]]


@pytest.mark.parametrize("side", [1, 7, 16, 40])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("limit", [0, 10**9], ids=["one by one", "matrices"])
def test_a_crop_is_torchs_resize_of_the_box(side: int, channels: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MATRIX_LIMIT", limit)
    x = images(len(BOXES), channels, 24, 30)
    flip = torch.arange(len(BOXES)) % 3 == 0
    for exact, tolerance in ((True, 1e-5), (False, STEP + 1e-5)):
        views = crop(x, torch.tensor(BOXES), side, flip, exact=exact)
        for i, box in enumerate(BOXES):
            torch.testing.assert_close(views[:, i], reference(x[i], box, side, bool(flip[i])), rtol=0, atol=tolerance)


def test_the_fast_cpu_crop_rounds_as_torchvision_does_for_uint8() -> None:
    x = images(4, 3, 64, 64)
    boxes = torch.tensor([[0, 0, 64, 64], [3, 9, 50, 40], [20, 20, 44, 44], [1, 2, 20, 30]])
    views = crop(x, boxes, 48)
    for i, (top, left, h, w) in enumerate(boxes.tolist()):
        part = x[i : i + 1, :, top : top + h, left : left + w]
        expected = F.interpolate(part, size=(48, 48), mode="bilinear", antialias=True)[0] / 255
        torch.testing.assert_close(views[:, i], expected)


@pytest.mark.parametrize("limit", [0, 10**9], ids=["one by one", "matrices"])
def test_padding_never_leaks(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MATRIX_LIMIT", limit)
    x = images(64, 3, 40, 40)
    sizes = torch.randint(5, 41, (64, 2), generator=torch.Generator().manual_seed(1))
    boxes = random_boxes(sizes, torch.Generator().manual_seed(2), (0.2, 1.0))
    one, other = x.clone(), x.clone()
    for i, (h, w) in enumerate(sizes.tolist()):
        for canvas, padding in ((one, 0), (other, 255)):
            canvas[i, :, h:] = padding
            canvas[i, :, :, w:] = padding
    torch.testing.assert_close(crop(one, boxes, 20), crop(other, boxes, 20), rtol=0, atol=0)


def test_boxes_lie_inside_their_image() -> None:
    sizes = torch.randint(1, 60, (5000, 2), generator=torch.Generator().manual_seed(0))
    box = random_boxes(sizes, torch.Generator().manual_seed(1), (0.08, 1.0))
    top, left, height, width = box.unbind(1)
    assert (box[:, :2] >= 0).all()
    assert (box[:, 2:] >= 1).all()
    assert (top + height <= sizes[:, 0]).all()
    assert (left + width <= sizes[:, 1]).all()


def naive_box(height: int, width: int, scale: tuple[float, float]) -> tuple[int, int]:
    """RandomResizedCrop.get_params as torchvision documents it; height and width of one box."""
    for _ in range(10):
        area = height * width * torch.empty(1).uniform_(*scale).item()
        ratio = torch.exp(torch.empty(1).uniform_(*torch.log(torch.tensor([3 / 4, 4 / 3])).tolist())).item()
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return h, w
    if width / height < 3 / 4:
        return round(width / (3 / 4)), width
    if width / height > 4 / 3:
        return height, round(height * (4 / 3))
    return height, width


@pytest.mark.parametrize(("height", "width"), [(100, 100), (60, 150)])
def test_area_and_ratio_are_distributed_as_torchvisions(height: int, width: int) -> None:
    torch.manual_seed(0)
    n, quantiles = 4000, torch.linspace(0.05, 0.95, 10)
    naive = torch.tensor([naive_box(height, width, (0.08, 1.0)) for _ in range(n)]).float()
    ours = random_boxes(torch.tensor([[height, width]]).expand(n, 2), torch.Generator().manual_seed(0), (0.08, 1.0))[:, 2:].float()
    for measure in (lambda box: box.prod(1) / (height * width), lambda box: (box[:, 1] / box[:, 0]).log()):
        expected, got = measure(naive).quantile(quantiles), measure(ours).quantile(quantiles)
        torch.testing.assert_close(got, expected, rtol=0, atol=0.03)


def test_ratio_is_width_over_height() -> None:
    box = random_boxes(torch.full((100, 2), 400), torch.Generator().manual_seed(0), (0.1, 0.4), (1.9, 2.1))
    assert ((box[:, 3] / box[:, 2] - 2).abs() < 0.15).all()


def test_places_are_uniform() -> None:
    box = random_boxes(torch.full((20_000, 2), 8), torch.Generator().manual_seed(0), (0.25, 0.25), (1.0, 1.0))
    assert (box[:, 2:] == 4).all()
    for corner in box[:, :2].unbind(1):
        torch.testing.assert_close(corner.bincount(minlength=5) / 20_000, torch.full((5,), 0.2), rtol=0, atol=0.015)


@pytest.mark.parametrize(
    ("size", "expected"), [((10, 100), [0, 43, 10, 13]), ((100, 10), [43, 0, 13, 10]), ((1, 1), [0, 0, 1, 1]), ((9, 10), [0, 0, 9, 10])]
)
def test_where_no_box_fits_the_central_one_is_taken(size: tuple[int, int], expected: list[int]) -> None:
    # Twice the image's area fits never.
    box = random_boxes(torch.tensor([size]), torch.Generator().manual_seed(0), (2.0, 2.0))
    assert box[0].tolist() == expected


def test_central_boxes_are_square_and_central() -> None:
    assert central_boxes(torch.tensor([[10, 20], [21, 10], [5, 5]])).tolist() == [[0, 5, 10, 10], [5, 0, 10, 10], [0, 0, 5, 5]]
