"""Figures that say during the training whether it goes well, without labels; with labels also an online kNN."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.data import Items
from selfsup.data.text.tokens import TextStore
from selfsup.distributed import alone
from selfsup.evaluation.collapse import Compared, collapse_warning, compared_warning
from selfsup.evaluation.features import in_parts
from selfsup.evaluation.knn import knn_top1
from selfsup.evaluation.measures import alignment, deviation, match, rankme, uniformity
from selfsup.method import Batch, Method
from selfsup.views.crops import RandomCrop, clean

WATCHED = 1024  # items whose embeddings are measured; a fixed draw, so that the curve moves with the network only
VIEWED = 128  # of them whose views go through the loss
KNN_TRAIN, KNN_TEST = 2048, 512


def make_monitor(items: Items, image_size: int, device: torch.device, seed: int) -> Callable[[Method], dict[str, Any]]:
    """A function of the method in evaluation mode: RankMe, deviation, alignment, match, uniformity, kNN, and a warning on collapse.

    Alignment and match are between two light views (crop and flip) of an item, the same for every method so that runs can be compared. Of
    methods that compare views it also watches what their loss sees.
    """
    order = np.random.default_rng(seed).permutation(len(items))
    watched_index = np.sort(order[:WATCHED])
    watched = items.batch(watched_index)
    labelled = order[items.labels[order] >= 0] if items.labels is not None else order[:0]
    knn_index = labelled[: KNN_TRAIN + KNN_TEST]
    split = min(KNN_TRAIN, len(knn_index) * 4 // 5)
    rest = np.setdiff1d(knn_index, watched_index)  # the others of kNN are watched anyway
    row = {item: number for number, item in enumerate([*watched_index, *rest])}
    knn_rows = [row[item] for item in knn_index]

    # Rows of a running text are parts of several documents: their mean vectors are much alike however good those of the tokens are.
    apart = not isinstance(items.store, TextStore) or items.store.layout in ("sentences", "related")

    def vectors(method: Method, batch: Batch) -> Tensor:
        x = clean({key: value.to(device) for key, value in batch.items()}, image_size)
        return in_parts(method.embed, x).float()

    def monitor(method: Method) -> dict[str, Any]:
        z = vectors(method, watched)
        figures: dict[str, Any] = {"rankme": rankme(z), "deviation": deviation(z), "uniformity": uniformity(z)}
        if image_size:
            generator = torch.Generator(device).manual_seed(seed)
            few = {key: value[:256].to(device) for key, value in watched.items()}
            light = RandomCrop(image_size)
            first, second = (in_parts(method.embed, light(few, generator)["image"]).float() for _ in range(2))
            figures["alignment"] = alignment(first, second)
            figures["match"] = match(first, second)
        if 0 < split < len(knn_index):
            x = torch.cat([z, *(vectors(method, items.batch(part)) for part in np.split(rest, range(512, len(rest), 512)) if len(part))])
            y = torch.from_numpy(items.labels[knn_index])  # type: ignore[index]
            x = F.normalize(x[knn_rows], dim=1).cpu()
            figures["knn_top1"] = knn_top1(x[:split], y[:split], x[split:], y[split:])
        warning = collapse_warning(figures["rankme"], figures["deviation"], z.shape[1], rows=len(z)) if apart else None
        found = seen_by_loss(method, {key: value[:VIEWED].to(device) for key, value in watched.items()}, image_size, seed)
        if found:
            figures["compared"] = found._asdict()
            warning = warning or compared_warning(found)
        if warning:
            figures["warning"] = warning
        return figures

    return monitor


@torch.no_grad()
def seen_by_loss(method: Method, batch: Batch, image_size: int, seed: int) -> Compared | None:
    """What the method's loss compares of these raw items, and what it says of their views, right and wrongly put together.

    None where the method compares no vectors. Its state, and torch's random numbers, stay as they are.
    """
    z = method.compared(clean(batch, image_size))
    if z is None:
        return None
    z = z.float()
    views = method.views(batch, torch.Generator(z.device).manual_seed(seed))
    shown = [name for name, x in views.items() if x.ndim == 4]
    matched = mismatched = None
    if 1 < len(shown) < len(z):
        # Each view one item further than the view before it, so that no two are of the same item.
        wrong = views | {name: views[name].roll(shift, dims=0) for shift, name in enumerate(shown)}
        matched, mismatched = (loss_alone(method, each, seed) for each in (views, wrong))
    return Compared(rankme(z), deviation(z), float(z.std(dim=0, unbiased=False).mean()), z.shape[1], matched, mismatched, len(z))


@torch.no_grad()
def loss_alone(method: Method, views: Batch, seed: int) -> float:
    """The loss on this process only, the same random numbers each time."""
    with alone(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return float(method.loss(views))
