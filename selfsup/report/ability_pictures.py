"""What a trained method can make, as pictures and bars."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from selfsup.report.data_uris import data_uris
from selfsup.report.numbers import compact, count, visible
from selfsup.report.run_contents import Run

PAIRS, SAMPLES, WALKS, FRAMES, CHARTS = 8, 16, 3, 10, 8
"""At most so many of each are drawn, and so many frames of a walk; more does not fit into the page."""

BYTES = 200_000
"""Largest sum of all pictures, as PNG: 62 of 32 x 32 pixels in colour."""

GAPS, RANKS = 128, 256
"""Up to so many bars there is room between them; of more bars than `RANKS`, sorted, so many are drawn at equal distances."""


def abilities(run: Run) -> dict[str, Any] | str | None:
    """What the page shows of page/abilities.npz; None where the method can nothing but give vectors, words where it cannot be read.

    Returns:
        `pairs`: (original, reconstruction) pictures; `walks`: rows of pictures; `samples`: pictures; `bars`: charts, see `_chart`; `notes`.
    """
    found = run.abilities
    if found is None:
        said = run.missing["page/abilities.npz"]
        return f"page/abilities.npz is {said}" if said.startswith("damaged") else None
    shown: list[np.ndarray] = []
    pairs, samples, walks = 0, 0, []
    if found.originals is not None and found.reconstructions is not None:
        pairs = min(PAIRS, len(found.originals))
        shown += [*found.originals[:pairs], *found.reconstructions[:pairs]]
    if found.walks is not None:
        walks = [row[:FRAMES] for row in found.walks[:WALKS]]
        shown += [frame for row in walks for frame in row]
    if found.samples is not None:
        samples = min(SAMPLES, len(found.samples))
        shown += [*found.samples[:samples]]
    if not shown and not found.bars and not found.notes:
        return None
    pictures = iter(data_uris(shown, BYTES))

    def take(n: int) -> list[str]:
        return [next(pictures) for _ in range(n)]

    return {
        "pairs": list(zip(take(pairs), take(pairs), strict=True)),
        "walks": [take(len(row)) for row in walks],
        "samples": take(samples),
        "bars": [_chart(visible(title), values) for title, values in list(found.bars.items())[:CHARTS]],
        "notes": [*map(visible, found.notes), *_left_out(len(found.bars) - CHARTS)],
    }


def _left_out(charts: int) -> Iterator[str]:
    if charts > 0:
        yield f"{count(charts)} more rows of numbers stand in page/abilities.npz."


def _chart(title: str, values: np.ndarray) -> dict[str, Any]:
    """Sorted bars: `path` in a box `width` by 100 (one unit a bar), `high` and `low` at its ends, and `said`, the same in words."""
    finite = np.sort(values[np.isfinite(values)].astype(np.float64))[::-1]
    lost = len(values) - len(finite)
    gone = f"; {_are(lost)} not finite" if lost else ""
    if not len(finite):
        return {"title": title, "width": 0, "path": "", "high": "", "low": "", "said": f"None of {count(len(values))} values is finite."}
    high, low = max(float(finite[0]), 0.0), min(float(finite[-1]), 0.0)
    span, drawn = high - low or 1.0, finite[np.linspace(0, len(finite) - 1, min(len(finite), RANKS)).round().astype(int)]
    zero, tops = f"{100 * high / span:.1f}", [f"{100 * (high - v) / span:.1f}" for v in drawn.tolist()]
    if len(drawn) <= GAPS:
        path = "".join(f"M{i} {zero}V{top}h.8V{zero}z" for i, top in enumerate(tops))
    else:
        path = f"M0 {zero}" + "".join(f"V{top}h1" for top in tops) + f"V{zero}z"
    said = f"{count(len(finite))} values, sorted: largest {compact(finite[0])}, median {compact(np.median(finite))}"
    said += f", smallest {compact(finite[-1])}"
    zeros, small = int((finite == 0).sum()), int((np.abs(finite) < 0.01 * np.abs(finite).max()).sum())
    if zeros:
        said += f"; {_are(zeros)} 0"
    elif small:
        said += f"; {_are(small)} below a hundredth of the largest"
    return {"title": title, "width": len(drawn), "path": path, "high": compact(high), "low": compact(low), "said": f"{said}{gone}."}


def _are(number: int) -> str:
    return f"{count(number)} {'is' if number == 1 else 'are'}"
