"""`selfsup embed`: vectors of every item, in a file that other tools open."""

from pathlib import Path
from typing import Any

import numpy as np

from selfsup.data import Items
from selfsup.engine.checkpoint import replace_file
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load


def embed(
    encoder: str | Path | TrainedEncoder, data: Any, *, out: str | Path | None = None, best: bool = False, max_bad: float = 0.01
) -> np.ndarray:
    """Vectors of all items, (N, width) float32, row by row in the order of the data.

    Args:
        encoder: a run, an encoder folder, or what `selfsup.load` gave.
        data: anything that `selfsup.pretrain` takes.
        out: vectors.npy (with names in vectors.names.txt beside it), or vectors.parquet with the columns name, label and embedding.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        max_bad: largest fraction of unreadable files, 0 to 1.

    Raises:
        ValueError: `out` has another ending, or the data does not fit the encoder.
    """
    if out is not None and Path(out).suffix not in (".npy", ".parquet"):
        raise ValueError(f"{out}: expected a name that ends in .npy or .parquet")
    trained = encoder if isinstance(encoder, TrainedEncoder) else load(encoder, best=best)
    items = trained.open(data, max_bad=max_bad)
    vectors = trained.embed(items)
    if out is not None:
        _write(Path(out), vectors, items)
    return vectors


def _write(out: Path, vectors: np.ndarray, items: Items) -> None:
    import io

    buffer = io.BytesIO()
    if out.suffix == ".npy":
        np.save(buffer, vectors, allow_pickle=False)
        replace_file(out.with_suffix(".names.txt"), "".join(name.replace("\n", "\\n") + "\n" for name in items.names).encode())
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(vectors.reshape(-1), pa.float32())
        columns: dict[str, Any] = {"name": pa.array(list(items.names))}
        if items.labels is not None:
            columns["label"] = pa.array([items.classes[i] if i >= 0 else None for i in items.labels], pa.string())
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        pq.write_table(pa.table(columns), buffer)
    replace_file(out, buffer.getvalue())
