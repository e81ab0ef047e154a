"""Names of items, which may be anything, as names of files in one folder."""

import re
from collections.abc import Sequence

from selfsup.data.files.listing import IMAGE_SUFFIXES

NAME_BYTES = 200
"""Of a part of a path; file systems have 255, a file that is being written needs some more."""


def file_names(names: Sequence[str], suffix: str = ".png") -> list[str]:
    """Where each picture goes: relative paths with that suffix, all different, none of which leaves its folder.

    Also on file systems that do not tell capitals from small letters. Of names that would be the same, the first one stays.
    """
    paths = [_inside(name) for name in names]
    folders = {"/".join(parts[:i]).casefold() for parts in paths for i in range(1, len(parts))}
    taken: set[str] = set()
    next_number: dict[str, int] = {}
    found = []
    for *parents, stem in paths:
        start = "/".join([*parents, stem])
        path, number = f"{start}{suffix}", next_number.get(start.casefold(), 2)
        while path.casefold() in taken or path.casefold() in folders:
            path, number = f"{start}-{number}{suffix}", number + 1
        next_number[start.casefold()] = number
        taken.add(path.casefold())
        found.append(path)
    return found


def _inside(name: str) -> list[str]:
    """The parts of a path that stays where it is put, the last without the suffix of an image."""
    parts = [re.sub(r"[\\:\x00-\x1f\x7f]", "_", part) for part in name.split("/") if part not in ("", ".", "..")] or ["picture"]
    parts[-1] = without_suffix(parts[-1]) or "picture"
    return [part.encode()[:NAME_BYTES].decode(errors="ignore") for part in parts]


def without_suffix(name: str) -> str:
    """The name without the suffix of an image, if it has one."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix}".lower().encode() in IMAGE_SUFFIXES else name
