"""What makes an item strange to a trained network: it is reconstructed badly, or it lies far from everything normal.

Axes: B items in a batch, N items, D places of a vector, K columns of a table (places of other vectors).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from selfsup.abilities import Reconstructs
from selfsup.data import Items
from selfsup.evaluation.anomaly import neighbour_distance, standard
from selfsup.evaluation.features import embed_items
from selfsup.method import Method
from selfsup.models.table import columns_of, known_values, row_error
from selfsup.tasks.pretraining.plan import statistics
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load
from selfsup.tasks.saved.trained_method import TrainedMethod, load_method

SCORES = ("reconstruction", "neighbours", "both")
TINY = 1e-12  # scores are positive, but for copies of normal items
LEAST_USUAL = 1e-4  # of the mean over columns: a column that is always predicted exactly is not infinitely sure of itself


def open_run(run: str | Path | TrainedEncoder | TrainedMethod, *, best: bool = False) -> TrainedMethod | TrainedEncoder:
    """The whole method of a run, or the encoder where there is no more."""
    if not isinstance(run, str | Path):
        return run
    return load_method(run, best=best) if (Path(run) / "checkpoints").is_dir() else load(run, best=best)


def scores_of(trained: TrainedMethod | TrainedEncoder, asked: str | None) -> tuple[str, ...]:
    """The scores to compute, in the order of `SCORES`.

    Args:
        trained: a run or an encoder.
        asked: any of them with commas; None for all that the run can give.
    Raises:
        ValueError: a score that does not exist, or reconstructions of a run that makes none.
    """
    method: Any = getattr(trained, "method", None)
    able = isinstance(method, Reconstructs)
    if asked is None:
        return SCORES if able else ("neighbours",)
    wanted = [name.strip() for name in asked.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in SCORES]
    if unknown or not wanted:
        raise ValueError(f"a score is one of {', '.join(SCORES)}; got {', '.join(unknown) or 'nothing'}")
    if wanted != ["neighbours"] and not able:
        if isinstance(trained, TrainedEncoder):
            raise ValueError("an encoder folder cannot reconstruct; give the folder of its run, or ask for --score neighbours")
        trained.require(Reconstructs, "reconstruct")
    return tuple(name for name in SCORES if name in wanted)


class Detector:
    """Scores items by what normal ones are like; a higher score is stranger.

    *Reconstruction*: for images, the mean squared error over values in [0, 1]. For vectors and rows of tables the mean over known columns
    of their error (squared, or cross entropy of a category), each in units of that column's usual error: a column that other columns
    determine tells more by a small error than a column of noise by a large one.
    *Neighbours*: the mean Euclidean distance to the k nearest of the normal items' vectors, each dimension in standard deviations of these.
    Vectors of images are brought to unit length first: their length tells how much there is to see, while that of a row tells how extreme
    it is. With a cosine in its place, malignant tumours in a table are nearer to benign ones than these are to each other.
    *Both*: the mean of the logarithms of the two, each in standard deviations from its mean over held-out normal items.

    Args:
        trained: a run or an encoder.
        kinds: what `scores_of` gives.
        normal: items to be compared with.
        held_out: other normal items, which say what scores are usual.
        k: neighbours.
        device: where the network computes.

    Attributes:
        usual: scores of the held-out items, (N,) each.

    Raises:
        ValueError: fewer normal items than neighbours.
    """

    def __init__(
        self,
        trained: TrainedMethod | TrainedEncoder,
        kinds: tuple[str, ...],
        normal: Items,
        held_out: Items,
        *,
        k: int,
        device: torch.device,
    ) -> None:
        self.kinds, self.k, self.device, self.image_size = kinds, k, device, trained.image_size
        self.network: Any = (trained.method if isinstance(trained, TrainedMethod) else trained.network).to(device)
        if "neighbours" in kinds or "both" in kinds:
            self._normal = self._vectors(normal)
            self._standard = standard(self._normal)
            self._normal = self._standard(self._normal)
        if "reconstruction" in kinds or "both" in kinds:
            self._fit_errors(normal)
        raw = self._raw(held_out)
        logs = {name: np.log(np.maximum(s, TINY)) for name, s in raw.items()}
        self._places = {name: (float(log.mean()), float(log.std()) or 1.0) for name, log in logs.items()}
        self.usual = self._chosen(raw)

    def __call__(self, items: Items) -> dict[str, np.ndarray]:
        """(N,) float64 scores of each kind."""
        return self._chosen(self._raw(items))

    def maps(self, x: Tensor) -> tuple[Tensor, Float[Tensor, "B H W"]]:
        """Reconstructions of images (B, C, H, W), and the squared error of each pixel, a mean over its channels."""
        made = self.network.reconstruct(x)
        return made, (made - x).square().mean(dim=1)

    def _chosen(self, raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if "both" in self.kinds:
            logs = {name: np.log(np.maximum(s, TINY)) for name, s in raw.items()}
            raw = raw | {"both": np.mean([(logs[name] - mean) / std for name, (mean, std) in self._places.items()], axis=0)}
        return {name: raw[name] for name in self.kinds}

    def _raw(self, items: Items) -> dict[str, np.ndarray]:
        found = {}
        if "reconstruction" in self.kinds or "both" in self.kinds:
            found["reconstruction"] = self._over(items, self._item_errors)[:, 0].double().numpy()
        if "neighbours" in self.kinds or "both" in self.kinds:
            found["neighbours"] = neighbour_distance(self._standard(self._vectors(items)), self._normal, self.k).double().numpy()
        return found

    def _over(self, items: Items, function: Callable[[Tensor], Tensor]) -> Tensor:
        return embed_items(function, items, self.image_size, device=self.device)

    def _vectors(self, items: Items) -> Tensor:
        vectors = self._over(items, self.network.embed if isinstance(self.network, Method) else self.network)
        return F.normalize(vectors, dim=1) if self.image_size else vectors

    def _fit_errors(self, normal: Items) -> None:
        """For vectors: the units of each column and what its error usually is."""
        self._units = None
        if self.image_size:
            return
        blocks = normal.table.blocks if normal.table else ()
        mean, std = (torch.tensor(s, device=self.device) for s in statistics(normal))
        self._units, self._blocks, self._columns = (mean, std), blocks, columns_of(len(mean), blocks).to(self.device)
        sums = self._over(normal, lambda x: torch.cat(self._column_errors(x), dim=1))
        error, known = sums.double().mean(dim=0).chunk(2)
        usual = error / known.clamp(min=1e-12)
        self._usual = usual.clamp(min=LEAST_USUAL * float(usual.mean()) or 1.0).float().to(self.device)

    def _column_errors(self, x: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        """Error of each column, 0 where its value is missing, and 1.0 where it is known."""
        assert self._units is not None
        made, (mean, std) = self.network.reconstruct(x), self._units
        known = known_values(x, self._blocks)
        predicted = (made - mean) / std
        for start, stop in self._blocks:
            predicted[:, start:stop] = made[:, start:stop].clamp(min=1e-7).log()
        error = row_error(predicted, (x - mean) / std, known, self._blocks)
        empty = error.new_zeros(len(x), int(self._columns[-1]) + 1)
        return empty.index_add(1, self._columns, error), empty.index_add(1, self._columns, known.float())

    def _item_errors(self, x: Tensor) -> Float[Tensor, "B 1"]:
        if self.image_size:
            return self.maps(x)[1].flatten(1).mean(dim=1, keepdim=True)
        error, known = self._column_errors(x)
        return (error / self._usual).sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp(min=1)
