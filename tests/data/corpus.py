"""Builders of bad inputs: files that no decoder should survive, and archives that were built to do harm."""

import io
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (24, 24), mode: str = "RGB") -> Image.Image:
    """A noisy image, so that cutting its file anywhere loses pixels."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    return Image.fromarray(values[..., 0] if bands == 1 else values, None if mode == "RGB" else mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def bombs() -> dict[str, bytes]:
    """Tiny files that unfold into gigabytes."""
    rows = zlib.compress(bytes(40_000_000), 9)
    bmp = bytearray(encoded(picture(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 40_000, 40_000)
    gif = bytearray(encoded(picture(mode="L"), "GIF"))
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    tif = encoded(picture(), "TIFF")
    tif = tif.replace(struct.pack("<HHII", 256, 4, 1, 24), struct.pack("<HHII", 256, 4, 1, 50_000))
    tif = tif.replace(struct.pack("<HHII", 257, 4, 1, 24), struct.pack("<HHII", 257, 4, 1, 50_000))
    jpg = encoded(picture(), "JPEG")
    at = jpg.index(b"\xff\xc0") + 5
    return {
        "bomb.png": png_header(30_000, 30_000) + chunk(b"IDAT", rows) + chunk(b"IEND", b""),
        "bomb-just-above.png": png_header(8_001, 8_000) + chunk(b"IDAT", rows) + chunk(b"IEND", b""),
        "bomb-warned.png": png_header(10_000, 10_000) + chunk(b"IDAT", rows) + chunk(b"IEND", b""),
        "bomb.bmp": bytes(bmp),
        "bomb.gif": bytes(gif),
        "bomb.tif": tif,
        "bomb.jpg": jpg[:at] + struct.pack(">HH", 60_000, 60_000) + jpg[at + 4 :],
    }


def bad_files() -> dict[str, bytes]:
    """Name -> contents, of files that look like images by their suffix."""
    formats = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "gif": "GIF"}
    files: dict[str, bytes] = {}
    for suffix, kind in formats.items():
        whole = encoded(picture(mode="L" if kind == "GIF" else "RGB"), kind)
        files[f"empty.{suffix}"] = b""
        files[f"cut-early.{suffix}"] = whole[:9]
        files[f"cut-in-half.{suffix}"] = whole[: len(whole) // 2]
    png = encoded(picture(), "PNG")
    floats = np.full((8, 8), np.nan, np.float32)
    files |= {
        "text.jpg": b"no image at all\n" * 20,
        "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "utf16.png": "kein Bild".encode("utf-16") * 10,
        "noise.jpg": np.random.default_rng(1).integers(0, 256, 5000, np.uint8).tobytes(),
        "zeros.png": bytes(4096),
        "archive.jpg": b"PK\3\4" + bytes(100),
        "document.png": b"%PDF-1.7\n" + bytes(100),
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        "portable.png": b"P6\n2 2\n255\n" + bytes(12),
        "icon.png": encoded(picture(size=(16, 16)), "ICO"),
        "pickle.jpg": b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "elf.gif": b"\x7fELF" + bytes(60),
        "start-only.jpg": b"\xff\xd8\xff\xd9",
        "no-frame.gif": b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b";",
        "wrong-checksum.png": png.replace(b"IDAT", b"IDAT", 1)[:60] + b"\x55\x55" + png[62:],
        "no-pixels.png": png_header(8, 8) + chunk(b"IEND", b""),
        "no-size.png": png_header(0, 0) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""),
        "no-header.png": b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""),
        "list-beyond-end.tif": b"II*\0" + struct.pack("<I", 1 << 30),
        "list-in-itself.tif": b"II*\0" + struct.pack("<IHI", 8, 0, 8),
        "negative.bmp": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, -5, -5, 1, 24, 0, 0, 0, 0, 0, 0),
        "not-finite.tif": encoded(Image.fromarray(floats), "TIFF"),
        "phone.heic": b"\0\0\0\x18ftypheic" + bytes(40),
        "vector.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    return files | bombs()


def make_bad_corpus(folder: Path) -> list[str]:
    """Write more than 40 bad files of more than 15 kinds; returns their names. Each must be skipped with a reason, and none may do harm."""
    folder.mkdir(parents=True, exist_ok=True)
    files = bad_files()
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    (folder / "link-to-itself.jpg").symlink_to("link-to-itself.jpg")
    (folder / "link-to-nothing.png").symlink_to("there-is-no-such-file.png")
    os.mkfifo(folder / "pipe.jpg")
    return [*files, "link-to-itself.jpg", "link-to-nothing.png", "pipe.jpg"]


def make_hostile_zips(folder: Path) -> list[Path]:
    """Archives whose members try to leave, to link, to lie about themselves; each also holds good/0.png."""
    good = encoded(picture(), "PNG")
    names = {
        "parent": "../escaped.png",
        "deep-parent": "a/../../escaped.png",
        "absolute": "/tmp/selfsup-escaped.png",
        "drive": "C:\\escaped.png",
        "backslash": "..\\..\\escaped.png",
        "nul": "a.png\0.sh.png",
    }
    paths = []
    for kind, name in names.items():
        paths.append(folder / f"{kind}.zip")
        with zipfile.ZipFile(paths[-1], "w") as archive:
            info = zipfile.ZipInfo("x" * len(name))
            archive.writestr(info, good)
            archive.writestr("good/0.png", good)
        # zipfile cleans names while writing, so they are put in afterwards
        paths[-1].write_bytes(paths[-1].read_bytes().replace(b"x" * len(name), name.encode()))
    link = folder / "link.zip"
    with zipfile.ZipFile(link, "w") as archive:
        info = zipfile.ZipInfo("passwd.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("good/0.png", good)
    bomb = folder / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(50_000_000))
        archive.writestr("good/0.png", good)
    liar = folder / "liar.zip"  # says 100 bytes, holds 50 million
    data = bytearray(bomb.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", 100)
    liar.write_bytes(bytes(data))
    changed = folder / "changed.zip"  # contents that do not fit the checksum
    with zipfile.ZipFile(changed, "w") as archive:
        archive.writestr("a.bmp", encoded(picture(), "BMP"))
        archive.writestr("good/0.png", good)
    data = bytearray(changed.read_bytes())
    data[1000] ^= 255
    changed.write_bytes(bytes(data))
    return [*paths, link, bomb, liar, changed]


def make_hostile_tars(folder: Path) -> list[Path]:
    """The same for tar."""
    good = encoded(picture(), "PNG")
    paths = []
    for kind, name, member_type in [
        ("parent", "../escaped.png", tarfile.REGTYPE),
        ("absolute", "/tmp/selfsup-escaped.png", tarfile.REGTYPE),
        ("symlink", "passwd.png", tarfile.SYMTYPE),
        ("hardlink", "hard.png", tarfile.LNKTYPE),
        ("device", "null.png", tarfile.CHRTYPE),
        ("fifo", "pipe.png", tarfile.FIFOTYPE),
    ]:
        paths.append(folder / f"{kind}.tar")
        with tarfile.open(paths[-1], "w") as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = member_type, "/etc/passwd"
            info.size = len(good) if member_type == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(good))
            info = tarfile.TarInfo("good/0.png")
            info.size = len(good)
            archive.addfile(info, io.BytesIO(good))
    return paths
