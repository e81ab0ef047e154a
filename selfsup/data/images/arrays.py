"""Arrays as data: .npy and .npz mapped from disk where possible, or arrays in memory.

Axes: N items, H height, W width, C channels, D features.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.data.errors import BadDataError
from selfsup.data.files.listing import Listing, Names, file_fingerprint
from selfsup.data.images.decode import kind_of

_LABEL_KEYS = ("label", "labels", "y", "target", "targets")
_IMAGE_KEYS = ("image", "images", "x", "data", "arr_0")
_MAP_CHUNK = 1 << 24  # bytes looked at together while checking values


class ArraySource:
    """Images (N, H, W, C) of any real type, or vectors (N, D); item i is array[i].

    Attributes:
        array: the whole, perhaps mapped from disk.
        heads: (N, 4) height, width, channels, kind of values; height 0 where an item has values that are not finite. None for vectors.
    """

    seekable = True
    groups = None

    def __init__(self, array: np.ndarray, listing: Listing, bad: dict[int, str], *, mapped: tuple[Path, int] | None) -> None:
        self.array, self.listing, self.bad, self._mapped = array, listing, bad, mapped
        self.portable = mapped is not None
        self.heads: np.ndarray | None = None
        if array.ndim == 4:
            self.heads = np.empty((len(array), 4), np.int32)
            self.heads[:] = (*array.shape[1:], kind_of(array.dtype))
            self.heads[list(bad), 0] = 0

    def __getstate__(self) -> dict[str, Any]:
        # A map of a file would be sent as its contents: send where it is instead.
        return self.__dict__ | ({"array": (self.array.ndim, None)} if self._mapped else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._mapped is not None:
            ndim = state["array"][0]
            array = map_npy(*self._mapped)
            self.array = array[..., None] if array.ndim < ndim else array

    def read(self, i: int, *, head: bool = False) -> np.ndarray:
        """Item i, (H, W, C)."""
        return self.array[i]


def map_npy(path: Path, offset: int = 0) -> np.ndarray:
    """Map the array that is stored in the .npy format at a place of a file.

    Raises:
        BadDataError: not in the .npy format, shorter than its header says, or made of Python objects, which could run code when loaded.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(file)
            if dtype.hasobject:
                raise ValueError("it holds Python objects, which are not loaded because they could run code")
            if 0 in shape or not shape:
                return np.empty(shape, dtype)
            return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C").view(np.ndarray)
    except (ValueError, OSError, EOFError) as error:
        raise BadDataError(f"{path} is not a readable .npy array: {error}") from error


def open_npy(path: Path) -> ArraySource:
    """The array of a .npy file, mapped."""
    return array_source(map_npy(path), None, str(path.resolve()), file_fingerprint(path), mapped=(path.resolve(), 0))


def open_npz(path: Path) -> ArraySource:
    """The images (or vectors) of a .npz file and, under one of the usual names, their labels. A compressed one is read into memory.

    Raises:
        ValueError: several arrays could be the data.
        BadDataError: not a readable .npz.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")}
            places = {key: _stored_at(path, info) for key, info in members.items()}
        with np.load(path, allow_pickle=False) as loaded:
            arrays = {key: map_npy(path, place) if place is not None else loaded[key] for key, place in places.items()}
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        if isinstance(error, BadDataError):
            raise
        raise BadDataError(f"{path} is not a readable .npz: {error}") from error
    keys = [key for key, array in arrays.items() if array.ndim >= 2]
    usual = [key for key in keys if key.lower() in _IMAGE_KEYS]
    if len(keys) != 1 and len(usual) != 1:
        found = ", ".join(f"{key} {array.shape}" for key, array in arrays.items()) or "nothing"
        raise ValueError(f'{path} must hold one array of images or vectors, or one named "images"; got {found}')
    key = keys[0] if len(keys) == 1 else usual[0]
    array = arrays[key]
    labels = [a for name, a in arrays.items() if name.lower() in _LABEL_KEYS and a.shape == (len(array),)]
    place = places[key]
    mapped = None if place is None else (path.resolve(), place)
    return array_source(array, labels[0] if labels else None, f"{path.resolve()}", file_fingerprint(path), mapped=mapped)


def _stored_at(path: Path, info: zipfile.ZipInfo) -> int | None:
    """Where the contents of an uncompressed member begin in the file."""
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        return info.header_offset + 30 + sum(np.frombuffer(file.read(4), "<u2").tolist())


def array_source(
    array: np.ndarray, labels: np.ndarray | None, origin: str, fingerprint: str, *, mapped: tuple[Path, int] | None = None
) -> ArraySource:
    """Check an array and wrap it.

    Args:
        array: (N, H, W), (N, H, W, C) or (N, D), real numbers.
        labels: (N,) of any type, or None.
        origin: for messages.
        fingerprint: empty to make it from the contents.
    Raises:
        ValueError: another shape or type; channels before height and width.
    """
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3, 4) or 0 in array.shape[1:]:
        raise ValueError(f"{origin}: expected real numbers (N, H, W, C), (N, H, W) or (N, D), got {array.dtype} {array.shape}")
    if array.ndim == 4:
        _, height, width, channels = array.shape
        if (height in (1, 3, 4) and channels not in (1, 3, 4) and width > 4) or (width == channels != height):
            raise ValueError(
                f"{origin}: expected (N, H, W, C), got {array.shape}, which seems to be (N, C, H, W); transpose it with (0, 2, 3, 1)"
            )
    if array.ndim == 3:
        array = array[..., None]
    bad = _not_finite(array)
    numbers, classes = number_labels(labels) if labels is not None else (None, ())
    if not fingerprint:
        digest = hashlib.blake2b(f"{array.shape} {array.dtype}".encode(), digest_size=16)
        for start, stop in _chunks(array):
            digest.update(array[start:stop].tobytes())
        digest.update(b"" if numbers is None else numbers.tobytes())
        fingerprint = digest.hexdigest()
    names = Names.of(b"row %d" % i for i in range(len(array)))
    listing = Listing(names, numbers, classes, (), 0, fingerprint, origin, array.nbytes)
    return ArraySource(array, listing, bad, mapped=mapped)


def _chunks(array: np.ndarray) -> list[tuple[int, int]]:
    rows = max(1, _MAP_CHUNK * len(array) // max(1, array.nbytes)) if len(array) else 1
    return [(start, min(start + rows, len(array))) for start in range(0, len(array), rows)]


def _not_finite(array: np.ndarray) -> dict[int, str]:
    bad: dict[int, str] = {}
    if array.dtype.kind == "f":
        for start, stop in _chunks(array):
            fine = np.isfinite(array[start:stop]).reshape(stop - start, -1).all(axis=1)
            bad.update({int(start + i): "values are not finite (NaN or infinity)" for i in np.flatnonzero(~fine)})
    return bad


def number_labels(labels: np.ndarray, names: tuple[str, ...] = ()) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of any type -> ((N,) int64, class names).

    Args:
        labels: integers, where negative means unknown, or strings.
        names: of the integers 0, 1, ..., if they have names; else classes are the numbers that occur, in order.
    """
    if labels.dtype.kind in "iub":
        values = labels.astype(np.int64)
        if names and (not len(values) or values.max() < len(names)):
            return np.maximum(values, -1), names
        known = np.unique(values[values >= 0])
        return np.where(values < 0, -1, np.searchsorted(known, values)), tuple(str(value) for value in known)
    text = np.array([str(value) for value in labels])
    known, numbers = np.unique(text, return_inverse=True)
    return numbers.astype(np.int64), tuple(str(value) for value in known)
