"""Every method, one paper one file. The id is the public name and the module's name; adding a method adds one line here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfsup.method import Method

METHODS: dict[str, str] = {
    "simclr": "SimCLR",
    "moco": "MoCo",
    "rotation": "Rotation",
    "denoising": "Denoising",
    "gan": "GAN",
}


def method_class(method: str) -> type[Method]:
    """The class of a method's id.

    Raises:
        ValueError: no such method; names the nearest one.
    """
    if method not in METHODS:
        import difflib

        near = difflib.get_close_matches(method, METHODS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(METHODS)}."
        raise ValueError(f'no method "{method}"; {hint} `selfsup methods` describes them all')
    return getattr(importlib.import_module(f"selfsup.methods.{method}"), METHODS[method])
