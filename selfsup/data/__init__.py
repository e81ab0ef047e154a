"""Room 1, data: disk -> raw items in one process-safe, seekable, countable form.

`files/` knows where bytes lie (listing, folders, zips, tars, parquet); `images/`, `tables/` and `text/` make items of them, each kind in
a folder of its own. Read in this order: `files/listing` (what a source finds), `images/sources` (which source reads what), `images/decode`
(raw item -> pixels), `workers` (decoding processes), `images/prepare` (the two passes), `cache`, `items`, `opening`, `loader`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfsup.data.errors import BadDataError, Skipped
    from selfsup.data.items import Items
    from selfsup.data.loader import Loader, sequential
    from selfsup.data.opening import open_data

__all__ = ["BadDataError", "Items", "Loader", "Skipped", "open_data", "sequential"]

# Imported at first use: a decoding process needs `decode` and the sources but not torch, which takes seconds to start.
_HOMES = {
    "BadDataError": "errors",
    "Items": "items",
    "Loader": "loader",
    "Skipped": "errors",
    "open_data": "opening",
    "sequential": "loader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module selfsup.data has no attribute {name!r}")
    return getattr(importlib.import_module(f"selfsup.data.{_HOMES[name]}"), name)
