"""`selfsup verify`: every stored byte against its checksum."""

from pathlib import Path

from selfsup.engine.checkpoint import CHECKSUMS, verify_folder


def verify(path: str | Path) -> dict[Path, int]:
    """Check an encoder folder, or the encoder, the classifier and every checkpoint that there is of a run.

    Returns:
        Folder -> number of tensors in it, all of them whole.

    Raises:
        DamagedError: names every file that is damaged, and the tensors in it.
        ValueError: there is nothing to verify.
    """
    from selfsup.engine.checkpoint import DamagedError

    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder; expected a run of `selfsup pretrain` or an encoder folder")
    folders = (
        [path]
        if (path / CHECKSUMS).exists()
        else sorted(p for p in [path / "encoder", path / "classifier", *(path / "checkpoints").glob("step-*")] if p.is_dir())
    )
    if not folders:
        raise ValueError(f"{path}: neither encoder/ nor checkpoints/ in it; expected a run of `selfsup pretrain` or an encoder folder")
    whole, damaged = {}, []
    for folder in folders:
        try:
            whole[folder] = verify_folder(folder)
        except DamagedError as error:
            damaged.append(str(error))
    if damaged:
        raise DamagedError("; ".join(damaged))
    return whole
