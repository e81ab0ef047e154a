"""The sample seen as a map and as rows of neighbours.

Axes: M items of the sample, k neighbours of each.
"""

from collections import Counter
from typing import Any

import numpy as np

from selfsup.report.data_uris import data_uris, sprite
from selfsup.report.numbers import head, tail, visible
from selfsup.report.page_files import LARGEST_SAMPLE, Sample
from selfsup.report.run_contents import Run

NEIGHBOURS = 8
QUERIES = 8
COLOURS = 10
"""Colours that the style sheet can tell apart, also for the colour-blind; classes beyond are grey until they are picked."""

LONGEST_NAME, LONGEST_CLASS = 60, 30


def atlas(run: Run) -> dict[str, Any] | str:
    """The map's data and the rows of neighbours, or in words why there are none.

    Returns:
        `map`: for the script: x, y in [0, 1], names, labels, classes, colours, neighbours and a sprite.
        `rows`: for the template: each a query and its neighbours, with name, class, picture, similarity and whether the classes agree.
        `notes`: sentences about what is not shown.
    """
    if run.sample is None:
        return f"page/sample.npz is {run.missing['page/sample.npz']}"
    sample, notes = _usable(run.sample)
    if len(sample.embeddings) < 4:
        return f"A map needs at least 4 items, and the sample has {len(sample.embeddings)}."
    x, y = _coordinates(sample.embeddings)
    similarities, indices = _neighbours(sample.embeddings)
    classes = _classes(run, sample)
    names = [tail(visible(name), LONGEST_NAME) for name in sample.names]
    drawn = {
        "x": x,
        "y": y,
        "names": names,
        "labels": sample.labels.tolist(),
        **classes,
        "neighbours": indices.tolist(),
        "sprite": None if sample.thumbnails is None else sprite(sample.thumbnails),
    }
    return {"map": drawn, "rows": _rows(sample, names, classes["classes"], similarities, indices), "notes": notes, "items": len(names)}


def _usable(sample: Sample) -> tuple[Sample, list[str]]:
    """Only items whose vectors are finite, and no more than the page can show."""
    keep = np.flatnonzero(np.isfinite(sample.embeddings).all(axis=1))
    notes = []
    if broken := len(sample.embeddings) - len(keep):
        notes.append(f"{broken:,} vectors are not finite and were left out.")
    if len(keep) > LARGEST_SAMPLE:
        notes.append(f"Only the first {LARGEST_SAMPLE:,} of {len(keep):,} items are shown.")
        keep = keep[:LARGEST_SAMPLE]
    thumbnails = None if sample.thumbnails is None else sample.thumbnails[keep]
    return Sample(sample.embeddings[keep], thumbnails, sample.labels[keep], tuple(sample.names[i] for i in keep)), notes


def _coordinates(embeddings: np.ndarray) -> tuple[list[float], list[float]]:
    """Places on the map, in [0, 1]; both axes have one scale, so that distances stay comparable."""
    import torch

    from selfsup.evaluation.projection import project

    places = np.asarray(project(torch.from_numpy(embeddings)), dtype=np.float64)
    low, high = places.min(axis=0), places.max(axis=0)
    places = (places - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5
    return places[:, 0].round(4).tolist(), places[:, 1].round(4).tolist()


def _neighbours(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities (M, k) and numbers (M, k) of the nearest other items, nearest first."""
    import torch
    import torch.nn.functional as F

    from selfsup.evaluation.knn import neighbours

    z = F.normalize(torch.from_numpy(embeddings), dim=-1)
    k = min(NEIGHBOURS, len(z) - 1)
    similarities, indices = (found.numpy() for found in neighbours(z, z, k + 1))
    # Every item finds itself, though not always first: copies of it are as near. Push itself to the end, and drop the end.
    order = np.argsort(indices == np.arange(len(z))[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(indices, order, axis=1)


def _classes(run: Run, sample: Sample) -> dict[str, Any]:
    """`classes`: label -> [name, items], the largest first; `coloured`: the labels that have a colour of their own."""
    known = run.recorded("data", "classes")
    known = known if isinstance(known, list) else []
    sizes = Counter(label for label in sample.labels.tolist() if label >= 0)
    names = {label: str(known[label]) if label < len(known) else f"class {label}" for label in sizes}
    ordered = sorted(sizes, key=lambda label: (-sizes[label], label))
    coloured = sorted(ordered[:COLOURS])
    # Ten classes or fewer stand in their own order, as in the data; more of them by size, those with a colour first.
    legend = coloured + ([] if len(ordered) <= COLOURS else ordered[COLOURS:])
    return {
        "classes": {label: [head(names[label], LONGEST_CLASS), sizes[label]] for label in legend},
        "order": legend,
        "coloured": coloured,
    }


def _rows(
    sample: Sample, names: list[str], classes: dict[int, list[Any]], similarities: np.ndarray, indices: np.ndarray
) -> list[dict[str, Any]]:
    """Neighbours of a few items drawn at random, the same ones each time the page is made."""

    queries = np.sort(np.random.default_rng(0).choice(len(names), min(QUERIES, len(names)), replace=False)).tolist()
    shown = sorted({*queries, *indices[queries].ravel().tolist()})
    pictures = dict(zip(shown, data_uris([sample.thumbnails[i] for i in shown]), strict=True)) if sample.thumbnails is not None else {}

    def item(i: int) -> dict[str, Any]:
        return {"name": names[i], "class": classes.get(int(sample.labels[i]), [""])[0], "picture": pictures.get(i)}

    rows = []
    for query in queries:
        own = int(sample.labels[query])
        near = []
        for similarity, i in zip(similarities[query].tolist(), indices[query].tolist(), strict=True):
            same = None if own < 0 or sample.labels[i] < 0 else own == int(sample.labels[i])
            near.append({**item(i), "similarity": f"{similarity:.2f}", "same": same})
        rows.append({**item(query), "neighbours": near})
    return rows
