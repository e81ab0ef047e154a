"""Compression: what comes out of the file is what the run reconstructs, and no byte of it may change unseen."""

import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import selfsup
from selfsup.cli import run as cli
from selfsup.engine.checkpoint import DamagedError
from selfsup.models.pixelcnn import ExactPixelCNN, PixelCNN
from selfsup.tasks.compression import code_blocks, codecs, container
from selfsup.tasks.compression.compress import fingerprint
from selfsup.tasks.pretraining.pretrain import pretrain
from selfsup.tasks.saved.trained_method import load_method

OPTIONS = {"codebook_size": 16, "prior_planes": 4, "prior_layers": 2}


def smooth(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    corners = np.random.default_rng(seed).integers(0, 256, (3, 3, channels), dtype=np.uint8)
    planes = [Image.fromarray(corners[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = np.stack([smooth(16, 16, 3, seed) for seed in range(40)])
    out = tmp_path_factory.mktemp("runs") / "run"
    return pretrain(images, "vqvae", out=out, batch_size=20, steps=6, quiet=True, **OPTIONS).path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of several sizes, in folders, two of them with one name but for the ending."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    sizes = {"a/1.png": (16, 16), "a/2.png": (33, 47), "b/1.png": (16, 16), "b/1.bmp": (16, 16), "c.png": (7, 5)}
    for seed, (name, (height, width)) in enumerate(sizes.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(height, width, 3, seed)).save(folder / name)
    return folder


def expected(run: Path, folder: Path, name: str) -> np.ndarray:
    x = torch.from_numpy(np.array(Image.open(folder / name))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        return load_method(run).method.reconstruct(x).mul(255).round().byte()[0].permute(1, 2, 0).numpy()  # type: ignore[operator]


@pytest.mark.parametrize("prior", [False, True])
def test_a_fresh_process_gives_back_what_the_run_reconstructs(prior: bool, trained: Path, photos: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "photos.ssc", tmp_path / "out"
    found = selfsup.compress(trained, photos, out=file, prior=prior)
    assert found["bytes"] == file.stat().st_size
    pixels = 3 * 16 * 16 + 33 * 47 + 7 * 5
    assert (found["images"], found["pixels"], found["prior"]) == (5, pixels, prior)
    assert found["bits_per_pixel"] == 8 * file.stat().st_size / pixels
    command = [sys.executable, "-m", "selfsup", "decompress", str(trained), str(file), "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"{out}: 5 images\n"
    names = {"a/1.png": "a/1.png", "a/2.png": "a/2.png", "b/1.bmp": "b/1.png", "b/1.png": "b/1-2.png", "c.png": "c.png"}
    assert {str(path.relative_to(out)) for path in out.rglob("*.*")} == set(names.values())
    quality = []
    for name, written in names.items():
        image = np.array(Image.open(out / written))
        assert np.array_equal(image, expected(trained, photos, name)), name
        original = np.array(Image.open(photos / name)).astype(float)
        quality.append(10 * np.log10(255**2 / ((image - original) ** 2).mean()))
    np.testing.assert_allclose(found["psnr"], np.mean(quality))


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_other_channels_and_many_images(channels: int, tmp_path: Path) -> None:
    images = np.random.default_rng(channels).integers(0, 256, (300, 9, 9, channels), dtype=np.uint8)
    run = pretrain(images, "vqvae", out=tmp_path / "run", batch_size=20, steps=2, quiet=True, **OPTIONS).path
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    whole = load_method(run).method.reconstruct(x).mul(255).round().byte().permute(0, 2, 3, 1).numpy()  # type: ignore[operator]
    for prior in (False, True):
        found = selfsup.compress(run, images, out=tmp_path / "x.ssc", prior=prior, beside=False)
        assert "beside" not in found
        back = selfsup.decompress(run, tmp_path / "x.ssc", out=tmp_path / f"out{prior}")
        assert all(np.array_equal(image, one) for (_, image), one in zip(back, whole, strict=True))
        file = next((tmp_path / f"out{prior}").glob("row 7.*"))
        assert np.array_equal(np.load(file) if channels > 1 else np.array(Image.open(file))[..., None], whole[7])


@pytest.mark.parametrize("prior", [False, True])
def test_several_blocks(prior: bool, trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selfsup.compress(trained, photos, out=tmp_path / "one.ssc", beside=False, prior=prior)
    monkeypatch.setattr("selfsup.tasks.compression.code_blocks.BLOCK_IMAGES", 2)
    selfsup.compress(trained, photos, out=tmp_path / "three.ssc", beside=False, prior=prior)
    assert container.read(tmp_path / "three.ssc")[0].blocks == [2, 2, 1]
    one, three = (selfsup.decompress(trained, tmp_path / name) for name in ("one.ssc", "three.ssc"))
    assert [name for name, _ in one] == [name for name, _ in three] == ["c.png", "a/1.png", "a/2.png", "b/1.bmp", "b/1.png"]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(one, three, strict=True))


def test_frequencies_and_prior_each_save_what_they_know() -> None:
    """Maps that are one code all over, one of two in four: a bit a code by frequencies, a bit a map by the prior, two bits by neither."""
    torch.manual_seed(0)
    codes = torch.randint(2, (400, 1, 1)).expand(400, 4, 4).contiguous()
    prior = PixelCNN(4, 16, 2)
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(prior(codes[:100]), codes[:100]).backward()
        optimizer.step()
    maps = list(codes.numpy())
    table = code_blocks.frequency_table(maps, 4)
    flat, static, expected = (
        len(code_blocks.encode(maps, *how)) for how in (([], 4, None), (table, 4, None), ([], 4, ExactPixelCNN(prior)))
    )
    assert abs(flat - 400 * 16 * 2 / 8) < 40
    assert abs(static - 400 * 16 / 8) < 40
    assert expected < 400 / 8 + 40


def test_every_flipped_byte_and_every_cut_is_refused(trained: Path, photos: Path, tmp_path: Path) -> None:
    file, broken = tmp_path / "photos.ssc", tmp_path / "broken.ssc"
    selfsup.compress(trained, photos, out=file, beside=False)
    data = file.read_bytes()
    for at in range(len(data)):
        for flip in (0x01, 0x80):
            broken.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
            with pytest.raises(ValueError, match=r"broken\.ssc: (damaged|cut short|written in version|does not begin)"):
                container.read(broken)
    for length in range(len(data)):
        broken.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"broken\.ssc: (damaged|cut short|does not begin)"):
            container.read(broken)
    broken.write_bytes(data + b"\0")
    with pytest.raises(DamagedError, match="1 bytes too many"):
        selfsup.decompress(trained, broken)


def test_what_does_not_belong_together_is_refused(trained: Path, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "photos.ssc"
    selfsup.compress(trained, photos, out=file, beside=False)
    images = np.stack([smooth(16, 16, 3, seed) for seed in range(40, 60)])
    other = pretrain(images, "vqvae", out=tmp_path / "other", batch_size=20, steps=1, quiet=True, **OPTIONS).path
    own = fingerprint(load_method(trained).method)
    with pytest.raises(ValueError, match=f"fingerprint {own}.*name that run"):
        selfsup.decompress(other, file)
    data = bytearray(file.read_bytes())
    data[8:10] = struct.pack("<H", 7)
    (tmp_path / "later.ssc").write_bytes(data)
    with pytest.raises(ValueError, match="version 7 of the format, but this selfsup reads version 1"):
        selfsup.decompress(trained, tmp_path / "later.ssc")
    with pytest.raises(ValueError, match="not an empty folder"):
        selfsup.decompress(trained, file, out=photos)
    assert cli(["decompress", str(other), str(file), "--out", str(tmp_path / "o")]) == 2
    file.write_bytes(file.read_bytes()[:-1])
    assert cli(["decompress", str(trained), str(file), "--out", str(tmp_path / "o")]) == 4
    assert not (tmp_path / "o").exists()


def test_a_file_that_was_made_to_deceive_is_refused(trained: Path, photos: Path, tmp_path: Path) -> None:
    """Whoever makes a file can make its checksums too; names then stay in the folder, and nonsense is said to be nonsense."""
    file, out = tmp_path / "photos.ssc", tmp_path / "deep" / "out"
    selfsup.compress(trained, photos, out=file, beside=False)
    header, blocks = container.read(file)
    names = ["../../up.png", "/tmp/absolute.png", "..\\back.png", "..", "a\0b"]
    container.write(file, container.Header(**{**vars(header), "names": names}), blocks)
    selfsup.decompress(trained, file, out=out)
    assert {str(p.relative_to(out)) for p in out.rglob("*.png")} == {"up.png", "tmp/absolute.png", ".._back.png", "picture.png", "a_b.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"photos.ssc", "deep"}
    lies: list[tuple[str, object]] = [("names", names[:4]), ("table", [1, 2]), ("blocks", [4]), ("blocks", [-1, 6]), ("codes", 0)]
    lies += [("shape_of", [0, 0, 0, 0, 9]), ("shapes", [[1 << 20, 1 << 20, 2, 2]])]
    for name, lie in lies:
        container.write(file, container.Header(**{**vars(header), name: lie}), blocks)
        with pytest.raises(DamagedError, match="contradicts itself"):
            selfsup.decompress(trained, file)
    container.write(file, header, [blocks[0][:-2]])
    with pytest.raises(DamagedError, match="block 1 cannot be decoded"):
        selfsup.decompress(trained, file)
    container.write(file, header, [b"\0\0\0\0" + blocks[0][4:]])
    with pytest.raises(DamagedError, match="not those that were written"):
        selfsup.decompress(trained, file)


def test_the_command_line_says_what_others_do(trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compress", str(trained), str(photos), "--out", str(tmp_path / "x.ssc")]
    assert cli([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["beside_images"] == 5
    assert cli(arguments) == 0
    text = capsys.readouterr().out
    assert "JPEG, files as on disk" in text
    assert "WebP, headers counted once" in text
    assert f"{found['psnr']:.2f}" in text
    for codec in found["beside"].values():
        assert codec["shared"]["bits_per_pixel"] < codec["files"]["bits_per_pixel"]


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
@pytest.mark.parametrize("counted", ["files", "shared"])
def test_the_others_are_as_good_as_the_bytes_allow(codec: codecs.Codec, counted: codecs.Counted) -> None:
    images = [smooth(40, 56, 3, seed) for seed in range(4)]
    low, high = codecs.QUALITIES[codec]
    for quality in (7, 23, 50, 68, 93):
        budget = float(codecs.measure(images, codec, quality, counted).bytes)
        found = codecs.at_size(images, codec, budget, counted)
        assert found.bytes <= budget
        assert found.quality >= quality
        assert codecs.measure(images, codec, found.quality + 1, counted).bytes > budget
    assert codecs.at_size(images, codec, 1.0, counted).quality == low
    assert codecs.at_size(images, codec, 1e9, counted).quality == high


@pytest.mark.parametrize("channels", [1, 3])
def test_headers_are_counted_once(channels: int) -> None:
    """All but one of the headers are left out, and a header is what an image with nothing in it still has."""
    image = smooth(16, 24, channels, seed=0)
    one, two = (codecs.measure([image] * n, "jpeg", 30, "shared").bytes for n in (1, 2))
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "JPEG", quality=30)
    file = buffer.getvalue()
    assert one == len(file)
    data = file.index(b"\xff\xda")
    scan = data + 2 + int.from_bytes(file[data + 2 : data + 4], "big")
    assert two - one == len(file) - scan - 2
    one, two = (codecs.measure([image] * n, "webp", 30, "shared").bytes for n in (1, 2))
    assert one - (two - one) == codecs.WEBP_HEADER


def test_psnr_by_numbers() -> None:
    black = np.zeros((2, 2, 1), np.uint8)
    assert codecs.psnr(black, black + np.uint8(255)) == 0.0
    np.testing.assert_allclose(codecs.psnr(black, black + np.uint8(1)), 20 * np.log10(255))
    assert 88 < codecs.psnr(black, black) < 89
