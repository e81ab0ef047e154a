"""What a run's code keeps of its inputs, beside principal components of the same width: measured when a run ends, shown on its page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfsup.abilities import Decodes, Reconstructs
from selfsup.data import Items
from selfsup.engine.checkpoint import replace_file
from selfsup.evaluation.reconstruction_error import AgainstPCA, reconstruction_against_pca
from selfsup.views.crops import clean

FITTED, MEASURED = 4000, 1000


@torch.no_grad()
def write_beside_pca(run: Path, items: Items, method: Any, config: Mapping[str, Any]) -> AgainstPCA | None:
    """Write `page/reconstruction.json` of a method that has a code and reconstructs from it; None for others, and for rows of tables.

    Both are measured on the same 1,000 items of the run's data, and the components are fitted to 4,000, those among them: as the method was
    trained on them too, neither has the advantage of having seen them.
    """
    if items.table is not None or not (isinstance(method, Reconstructs) and isinstance(method, Decodes)):
        return None
    order = np.random.default_rng(config["training"]["seed"]).permutation(len(items))
    fitted, measured = (items.subset(np.sort(order[:n])) for n in (FITTED, MEASURED))
    size = config["encoder"]["image_size"]
    width = method.code(clean(measured.batch(np.arange(1)), size)).shape[1]
    found = reconstruction_against_pca(method.reconstruct, fitted, measured, width, image_size=size)
    (run / "page").mkdir(exist_ok=True)
    replace_file(run / "page" / "reconstruction.json", json.dumps(found._asdict()).encode())
    return found
