"""Numbers and names as the page prints them."""

import math
import re
from typing import Any

UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters, half characters (names that are not UTF-8), and marks that turn the direction of the text around them."""

UNKNOWN = "not recorded"


def visible(text: str) -> str:
    """The text with every character that cannot be seen, or that rearranges others, written as its code."""
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def tail(text: str, length: int) -> str:
    """The text, or where it is longer its end: the last part of a path tells items apart."""
    return text if len(text) <= length else "…" + text[1 - length :]


def head(text: str, length: int) -> str:
    """The text, or where it is longer its beginning."""
    return text if len(text) <= length else text[: length - 1] + "…"


def real(value: Any) -> float | None:
    """The value as a finite number, else None; true and false are no numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def count(value: Any) -> str:
    """1797 -> "1,797"."""
    number = real(value)
    return UNKNOWN if number is None else f"{round(number):,}"


def compact(value: Any) -> str:
    """1234567 -> "1.23 M"; three significant digits."""
    number = real(value)
    if number is None:
        return UNKNOWN
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= 0.9995 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def percent(value: Any) -> str:
    """0.952 -> "95.2 %"."""
    number = real(value)
    return "–" if number is None else f"{100 * number:.1f} %"


def points(difference: float) -> str:
    """0.0551 -> "5.5 points", the difference of two percentages."""
    return f"{100 * abs(difference):.1f} points"


def duration(value: Any) -> str:
    """85 seconds -> "1 min 25 s"."""
    number = real(value)
    if number is None:
        return UNKNOWN
    if number < 60:
        return f"{number:.1f} s" if number < 10 else f"{round(number)} s"
    seconds = round(number)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def plain(value: Any) -> str:
    """Any value of a JSON file, as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else str(value)[:40]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) or "none"
    return str(value)


def listing(parts: list[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def labels(number: int) -> str:
    """1 -> "1 label", 10 -> "10 labels"."""
    return f"{number:,} label{'' if number == 1 else 's'}"
