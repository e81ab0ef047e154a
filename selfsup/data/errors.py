"""What goes wrong with data, and how it is told."""

from dataclasses import dataclass


class BadDataError(ValueError):
    """The data cannot be used: nothing readable in it, or more bad items than allowed."""


@dataclass(frozen=True)
class Skipped:
    """One thing that was found and left out.

    Attributes:
        name: as `Items.names` would show it; a whole group of files is summed up as "*.txt".
        reason: in plain words.
    """

    name: str
    reason: str
