"""What the runs of a contest are measured by: the same items and the same rules for all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.data import Items
from selfsup.data.tables.schema import column_statistics
from selfsup.engine.checkpoint import read_json
from selfsup.evaluation.features import embed_items, in_parts
from selfsup.evaluation.four_rows import evaluate_table
from selfsup.evaluation.measures import alpha_req, lidar, rankme
from selfsup.evaluation.pca import pixels_pca
from selfsup.evaluation.protocol import Protocol, labels_of, matched
from selfsup.method import Encoder
from selfsup.models import build_encoder
from selfsup.tasks.pretraining.plan import statistics
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load
from selfsup.views.crops import TwoCrops

WATCHED = 2048  # items whose vectors RankMe and alpha-ReQ see
TOLD_APART, VIEWS = 512, 10  # items and views of each for LiDAR
LARGEST_TRAIN, LARGEST_TEST = 5_000, 2_500  # labelled items that are scored on: enough to tell methods a few points apart, and quick


class Judge:
    """Measures encoders.

    Args:
        items: what the methods learn from.
        test: labelled items to score on; None to keep a fifth of the labelled ones of `items` for it.

    Attributes:
        counts: labelled items that score: (those with a label to learn from, those to be named); None without labels.
        watched: items that the measures without labels see.
    """

    def __init__(self, items: Items, test: Items | None) -> None:
        self.items = items
        self._watched = _some(items, WATCHED)
        self._rows: np.ndarray | None = None
        all_labelled = items.labels is not None and bool((items.labels >= 0).all())
        self.parts: tuple[Items, Items] | None = None
        if test is not None:
            train, test, _ = matched(items, test)
            self.parts = _some(train, LARGEST_TRAIN), _some(test, LARGEST_TEST)
        elif items.labels is not None and len(np.unique(items.labels[items.labels >= 0])) > 1 and (items.labels >= 0).sum() >= 5:
            order = np.random.default_rng(0).permutation(len(items))
            labelled = order[items.labels[order] >= 0]
            split = min(len(labelled) // 5, LARGEST_TEST)
            train, test, _ = matched(items.subset(np.sort(labelled[split:][:LARGEST_TRAIN])), items.subset(np.sort(labelled[:split])))
            self.parts = train, test
        if self.parts is not None and all_labelled and len(self.parts[0]) >= WATCHED:  # a part of what is embedded to score
            self._rows = _drawn(len(self.parts[0]), WATCHED)
            self._watched = self.parts[0].subset(self._rows)
        self.watched = len(self._watched)
        self.counts = None if self.parts is None else tuple(len(part) for part in self.parts)

    def measure(self, run: Path) -> dict[str, Any]:
        """A finished run's figures: see `selfsup.evaluation.contest_statistics` and the page."""
        encoder, config = load(run), read_json(run / "config.json")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        last = max(lines, key=lambda line: line["step"])
        scored = None if self.parts is None else _embedded(encoder.network, self.parts, encoder.image_size)
        seen = scored is not None and self._rows is not None
        z = scored[0][self._rows] if seen else embed_items(encoder.network, self._watched, encoder.image_size)
        return {
            "seconds": last["seconds"],
            "images": last["images"],
            "images_per_second": last["images"] / max(last["seconds"], 1e-9),
            "peak_mib": read_json(run / "status.json").get("peak_mib"),
            "parameters": sum(p.numel() for p in encoder.network.parameters()),
            "encoder": config["encoder"]["name"],
            "rankme": _finite(rankme(z)),
            "alpha_req": _finite(alpha_req(z)),
            "lidar": _finite(lidar(self._views(encoder))),
            "knn_top1": None,
            "linear_top1": None,
            "few_label": None,
            **({} if scored is None or self.parts is None else _scores(scored, self.parts)),
            "warnings": list(dict.fromkeys(line["warning"] for line in lines if "warning" in line)),
            "curve": [{name: line.get(name) for name in ("seconds", "images", "rankme", "knn_top1")} for line in lines if "rankme" in line],
        }

    def untrained(self, encoder: str) -> Encoder:
        """The network of that name as it begins; ValueError where there is none that takes this data."""
        mean, std = statistics(self.items)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build_encoder(encoder, channels=self.items.shape[0], image_size=self.items.image_size, mean=mean, std=std).eval()

    def baselines(self, encoder: str) -> dict[str, Any] | None:
        """Raw pixels and the untrained network of that name by the same rules; None without labels."""
        if self.parts is None:
            return None
        network, size = self.untrained(encoder), self.items.image_size
        pixels = pixels_pca(*self.parts, network.width, image_size=size, seed=0)
        return {"pixels_pca": _scores(pixels, self.parts), "untrained": _scores(_embedded(network, self.parts, size), self.parts)}

    def _views(self, encoder: TrainedEncoder) -> Tensor:
        """Vectors (n, q, D) of the same views for every method: SimCLR's crops and colours, or noise on vectors."""
        items = self._watched.subset(np.arange(min(TOLD_APART, self.watched)))
        batch = items.batch(np.arange(len(items)))
        generator = torch.Generator().manual_seed(0)
        if items.kind == "vector":
            x = batch["vector"]
            _, std = column_statistics(x.numpy(), items.table.blocks if items.table else ())
            noise = 0.1 * torch.from_numpy(std).to(x)
            views = [x + noise * torch.randn(x.shape, generator=generator) for _ in range(VIEWS)]
        else:
            draw = TwoCrops(encoder.image_size, 0.5, scale=(0.2, 1.0))
            views = [view for _ in range(VIEWS // 2) for name, view in draw(batch, generator).items() if name in ("first", "second")]
        return torch.stack([in_parts(encoder, view).float() for view in views], dim=1)


def _embedded(network: Encoder, parts: tuple[Items, Items], image_size: int) -> tuple[Tensor, Tensor]:
    """Vectors of the items with a label to learn from, and of those to be named."""
    train, test = parts
    return embed_items(network, train, image_size), embed_items(network, test, image_size)


def _scores(vectors: tuple[Tensor, Tensor], parts: tuple[Items, Items]) -> dict[str, Any]:
    """Accuracies; the few-label curve as means over its draws, beside half of their 95 % intervals."""
    train, test = (labels_of(part) for part in parts)
    row = evaluate_table({"row": lambda: vectors}, train, test, Protocol())["row"]
    few = row["few_label"]
    return {
        **row,
        "few_label": {count: value["mean"] for count, value in few.items()},
        "few_label_draws": {count: (value["high"] - value["low"]) / 2 for count, value in few.items()},
    }


def _some(items: Items, largest: int) -> Items:
    return items.subset(_drawn(len(items), largest))


def _drawn(count: int, largest: int) -> np.ndarray:
    """Numbers of `largest` of so many items, the same each time, in their order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:largest])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
