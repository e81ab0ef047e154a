"""What the columns of a table mean, and where each stands in the vector of a row.

A number takes one place, NaN where it is missing. A category takes a block of places of which one is 1: its levels, most frequent first,
then one for any other text, then one for a missing value. A run keeps its schema, so that every later table becomes the same vectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

LEVELS = 64
"""Levels that a category keeps at most; with two places more its block has 66."""


@dataclass(frozen=True)
class Column:
    """One column; `levels` is None for a number."""

    name: str
    levels: tuple[str, ...] | None = None

    @property
    def width(self) -> int:
        """Places in the vector."""
        return 1 if self.levels is None else len(self.levels) + 2


@dataclass(frozen=True)
class Schema:
    """The columns of a table that are looked at, in the order of the vector, and the one that holds the classes, if any does."""

    columns: tuple[Column, ...]
    label: str | None = None

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First place of each column."""
        ends = np.cumsum([column.width for column in self.columns]).tolist()
        return (0, *ends[:-1])

    @property
    def width(self) -> int:
        """D, length of the vector."""
        return sum(column.width for column in self.columns)

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of every category's places."""
        pairs = zip(self.columns, self.starts, strict=True)
        return tuple((start, start + column.width) for column, start in pairs if column.levels is not None)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads; JSON can hold it."""

        def column(c: Column) -> dict[str, Any]:
            return {"name": c.name, "kind": "number"} if c.levels is None else {"name": c.name, "kind": "category", "levels": [*c.levels]}

        return {"columns": [column(c) for c in self.columns], "label": self.label}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Schema":
        """The schema that a run has kept in config["data"]["table"]."""
        columns = [Column(c["name"], tuple(c["levels"]) if c["kind"] == "category" else None) for c in said["columns"]]
        return cls(tuple(columns), said["label"])


def column_statistics(
    x: Float[np.ndarray, "N D"], blocks: tuple[tuple[int, int], ...] = ()
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """Mean and standard deviation of each place, missing values (NaN) left out; 0 and 1 in the blocks of categories.

    A place without any value has mean 0. A place that never changes has deviation 1, so that it becomes 0 and stays finite.
    """
    x, known = x.astype(np.float64), ~np.isnan(x)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, x, 0).sum(axis=0) / count
    std = np.sqrt((np.where(known, x - mean, 0) ** 2).sum(axis=0) / count)
    std[std <= 1e-6 * np.abs(mean)] = 1  # float32 cannot tell it from constant
    for start, stop in blocks:
        mean[start:stop], std[start:stop] = 0, 1
    return mean, std
