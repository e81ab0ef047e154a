"""Every mode against known means, every orientation, every limit. Nothing may be saturated, blacked out or silently stripped."""

import io

import numpy as np
import pytest
from PIL import Image

from selfsup.data.images import decode
from selfsup.data.images.decode import Target

RAMP = np.linspace(0, 255, 64 * 64).reshape(64, 64)  # its mean is 127.5


def target(limit: int = 64, channels: int = 3, **options: object) -> Target:
    return Target(limit, channels, (limit, limit), 64_000_000, **options)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def grey() -> Image.Image:
    return Image.fromarray(np.rint(RAMP).astype(np.uint8))


def with_alpha(mode: str) -> bytes:
    image = grey().convert(mode)
    image.putalpha(Image.fromarray(np.repeat(np.uint8([0, 255]), 32)[None].repeat(64, 0)))  # the left half is transparent
    return saved(image, "PNG")


def palette(**options: object) -> bytes:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 2, "L").convert("P")
    image.putpalette([200, 100, 0, 40, 50, 60])
    return saved(image, "PNG", **options)


def sixteen(kind: str, *, big_endian: bool = False) -> bytes:
    values = np.rint(RAMP * 257).astype(np.uint16)
    return saved(Image.fromarray(values.astype(">u2")) if big_endian else Image.fromarray(values), kind)


CMYK = Image.fromarray(np.stack([255 - np.rint(RAMP)] * 3 + [0 * RAMP], -1).astype(np.uint8), "CMYK")
HALF = RAMP[:, 32:].mean()
MODES = {  # name -> file, mean of each channel that it must have, range of deep values
    "1": (saved(Image.fromarray(RAMP > 191.25), "PNG"), [63.75] * 3, {}),
    "L": (saved(grey(), "PNG"), [127.5] * 3, {}),
    "LA": (with_alpha("L"), [(128 + HALF) / 2] * 3, {}),
    "RGBA": (with_alpha("RGB"), [(128 + HALF) / 2] * 3, {}),
    "P": (palette(), [120, 75, 30], {}),
    "P with transparency": (palette(transparency=0), [84, 89, 94], {}),
    "L with a transparent value": (saved(Image.fromarray(np.uint8([[7, 9]] * 2)), "PNG", transparency=7), [68.5] * 3, {}),
    "RGB": (saved(grey().convert("RGB"), "PNG"), [127.5] * 3, {}),
    "RGB with a transparent colour": (saved(Image.new("RGB", (4, 4), (9, 8, 7)), "PNG", transparency=(9, 8, 7)), [128] * 3, {}),
    "CMYK in JPEG": (saved(CMYK, "JPEG", quality=95), [127.5] * 3, {}),
    "CMYK in TIFF": (saved(CMYK, "TIFF"), [127.5] * 3, {}),
    "I;16 in PNG": (sixteen("PNG"), [127.5] * 3, {}),
    "I;16 in TIFF": (sixteen("TIFF"), [127.5] * 3, {}),
    "I;16B in TIFF": (sixteen("TIFF", big_endian=True), [127.5] * 3, {}),
    "I in TIFF": (saved(Image.fromarray((RAMP * 1000).astype(np.int32)), "TIFF"), [127.5] * 3, {"range_float": (0.0, 255_000.0)}),
    "F in TIFF": (saved(Image.fromarray((RAMP / 100 - 1).astype(np.float32)), "TIFF"), [127.5] * 3, {"range_float": (-1.0, 1.55)}),
    "GIF": (saved(grey(), "GIF"), [127.5] * 3, {}),
    "WebP": (saved(grey().convert("RGB"), "WEBP", lossless=True), [127.5] * 3, {}),
    "BMP": (saved(grey(), "BMP"), [127.5] * 3, {}),
}


@pytest.mark.parametrize("name", MODES)
def test_mean_of_every_mode(name: str) -> None:
    raw, means, ranges = MODES[name]
    pixels = decode.pixels(raw, target(**ranges))
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), means, atol=1.0)


@pytest.mark.parametrize("name", [name for name in MODES if name.endswith("TIFF") or (name.endswith("PNG") and name[0] == "I")])
def test_deep_ramps_keep_all_their_levels(name: str) -> None:
    raw, _, ranges = MODES[name]
    pixels = decode.pixels(raw, target(channels=1, **ranges))
    assert len(np.unique(pixels)) > 250
    np.testing.assert_allclose(pixels[0], RAMP, atol=1.01)


def test_deep_ranges_are_those_of_the_data_set() -> None:
    assert decode.range_of(np.array([3.0, 200.0]), decode.SIXTEEN) == (0.0, 255.0)
    assert decode.range_of(np.array([0.0, 4000.0]), decode.SIXTEEN) == (0.0, 4095.0)
    assert decode.range_of(np.array([10_000.0]), decode.SIXTEEN) == (0.0, 65535.0)
    assert decode.range_of(np.array([0.1, 0.9]), decode.FLOAT) == (0.0, 1.0)
    assert decode.range_of(np.array([0.0, 200.0]), decode.FLOAT) == (0.0, 255.0)
    low, high = decode.range_of(np.append(np.linspace(-3, 3, 10_000), 1e9), decode.FLOAT)  # one hot pixel must not black out the rest
    assert -3 <= low < -2.9
    assert 2.9 < high <= 3.1


def numbered() -> np.ndarray:
    """An image in which every corner differs, 16 high and 32 wide."""
    image = np.zeros((16, 32, 3), np.uint8)
    image[:8, :16], image[:8, 16:], image[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return image


STORED = {  # EXIF 2.3, tag 0x0112: how the upright image is stored for each value
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_obeyed(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    raw = saved(Image.fromarray(np.ascontiguousarray(STORED[orientation](numbered()))), kind, exif=exif, **options)
    assert decode.head(raw, 10**6)[:2] == (16, 32)
    for limit in (64, 16):  # as it is, and shrunk on the way
        pixels = decode.pixels(raw, target(limit)).astype(int)
        assert pixels.shape == (3, limit // 2, limit) if limit == 16 else (3, 16, 32)
        step = 32 // pixels.shape[2]
        expected = numbered().transpose(2, 0, 1)[:, 2::8, 2::8]
        np.testing.assert_allclose(pixels[:, 2 // step :: 8 // step, 2 // step :: 8 // step], expected, atol=6)


def test_shrinking_is_antialiased_and_keeps_the_aspect() -> None:
    stripes = np.zeros((300, 600), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode.pixels(saved(Image.fromarray(stripes), "PNG"), target(48, 1))
    assert pixels.shape == (1, 24, 48)
    np.testing.assert_allclose(pixels, 127.5, atol=2)  # any aliasing would show as 0 or 255
    assert decode.pixels(saved(Image.fromarray(stripes[:20, :30]), "PNG"), target(48, 1)).shape == (1, 20, 30)  # never enlarged


def test_a_large_jpeg_is_decoded_small_with_the_same_picture() -> None:
    y, x = np.mgrid[:600, :800] / 800
    smooth = np.stack([x, y, (x + y) / 2], -1) * 255
    small = decode.pixels(saved(Image.fromarray(smooth.astype(np.uint8)), "JPEG", quality=95), target(40))
    whole = decode.pixels(saved(Image.fromarray(smooth.astype(np.uint8)), "PNG"), target(40))
    assert small.shape == whole.shape == (3, 30, 40)
    np.testing.assert_allclose(small.astype(int), whole.astype(int), atol=3)


def test_bombs_are_refused_from_the_header(corpus) -> None:
    for name, raw in corpus.bombs().items():
        for refuse in (lambda raw=raw: decode.head(raw, 64_000_000), lambda raw=raw: decode.pixels(raw, target()).shape):
            with pytest.raises(ValueError, match=r"more (pixels )?than max_pixels = 64,000,000"):
                pytest.fail(f"{name}: {refuse()}")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_file_cut_short_is_an_error(kind: str, corpus) -> None:
    raw = saved(corpus.picture(), kind)
    for keep in (0.3, 0.6, 0.9):
        with pytest.raises(Exception, match=r".+"):
            decode.pixels(raw[: int(len(raw) * keep)], target())


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        raw = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(decode.pixels(raw, target())[:, 0, 0], (255, 0, 0))


def test_arrays_follow_the_same_table() -> None:
    image = np.stack([RAMP, 255 - RAMP, RAMP], -1)
    for values in (image.astype(np.uint8), (image * 257).astype(np.uint16), image / 255, image.astype(np.float16) / 255):
        pixels = decode.pixels(values, target())
        np.testing.assert_allclose(pixels, image.transpose(2, 0, 1), atol=1.01)
    np.testing.assert_array_equal(decode.pixels(image[..., :1] > 127, target(channels=1))[0], (RAMP > 127) * 255)
    five = np.repeat(RAMP[..., None] / 255, 5, axis=2)
    assert decode.pixels(five, target(32, 5)).shape == (5, 32, 32)
    np.testing.assert_allclose(
        decode.pixels(image.astype(np.uint8), target(channels=1))[0], np.asarray(image @ [0.299, 0.587, 0.114]), atol=1.5
    )
