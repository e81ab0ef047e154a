"""Commands that make pictures of pictures, with a whole trained method. Results go to stdout, progress and errors to stderr."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console


def _print_pictures(written: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(written.as_json()))
    else:
        print(written)


def denoise(
    run: Path,
    data: str,
    /,
    *,
    out: Path,
    clean: str | None = None,
    best: bool = False,
    device: str = "auto",
    max_bad: float = 0.01,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Take the noise from pictures, with a run of neighbor2neighbor or another method that can.

    Args:
        run: a run's folder.
        data: noisy pictures, as pretrain takes them.
        out: folder for as many PNGs under the same names; new or empty.
        clean: the same pictures without noise, to print PSNR and SSIM before and after.
        best: the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        max_bad: largest fraction of unreadable files, 0 to 1.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup

    rest: dict[str, Any] = {"best": best, "device": device, "max_bad": max_bad, "quiet": quiet}
    _print_pictures(selfsup.denoise(run, data, out=out, clean=clean, **rest), json_)


def inpaint(
    run: Path,
    data: str,
    /,
    *,
    mask: str,
    out: Path,
    best: bool = False,
    device: str = "auto",
    max_bad: float = 0.01,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Fill a region of every picture from what is around it.

    Args:
        run: a run's folder, of a method that fills regions.
        data: pictures, as pretrain takes them.
        mask: what is hidden: centre; random; or a picture, or pictures of the same names, in which white is hidden.
        out: folder for as many PNGs under the same names; new or empty.
        best: the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        max_bad: largest fraction of unreadable files, 0 to 1.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup

    rest: dict[str, Any] = {"best": best, "device": device, "max_bad": max_bad, "quiet": quiet}
    _print_pictures(selfsup.inpaint(run, data, mask=mask, out=out, **rest), json_)


def colorize(
    run: Path,
    data: str,
    /,
    *,
    out: Path,
    best: bool = False,
    device: str = "auto",
    max_bad: float = 0.01,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: bool = False,
) -> None:
    """Give gray pictures colours.

    Args:
        run: a run's folder, of a method that gives colours.
        data: pictures, as pretrain takes them; of those with colours only the gray values are used.
        out: folder for as many PNGs under the same names; new or empty.
        best: the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        max_bad: largest fraction of unreadable files, 0 to 1.
        json_: print one JSON object.
        quiet: no progress on stderr.
    """
    import selfsup

    rest: dict[str, Any] = {"best": best, "device": device, "max_bad": max_bad, "quiet": quiet}
    _print_pictures(selfsup.colorize(run, data, out=out, **rest), json_)


def compress(
    run: Path,
    data: str,
    /,
    *,
    out: Path,
    prior: bool = False,
    best: bool = False,
    beside: Annotated[bool, Parameter(negative="--no-beside")] = True,
    max_bad: float = 0.01,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Write a set of images into one file, as the codes of a run that quantises; the same run reads it again.

    Args:
        run: a run's folder, of vqvae for instance.
        data: images, as pretrain takes them; each keeps its size.
        out: the file, such as photos.ssc.
        prior: count bits by the run's prior over codes: smaller and slower.
        best: the best checkpoint by the label-free measure instead of the last; decompress then needs the same.
        beside: say also what JPEG and WebP make of a sample of the images with as many bytes.
        max_bad: largest fraction of unreadable files, 0 to 1.
        json_: print one JSON object.
    """
    from selfsup.tasks.compression.compress import as_table
    from selfsup.tasks.compression.compress import compress as write

    found = write(run, data, out=out, prior=prior, best=best, beside=beside, max_bad=max_bad)
    if json_:
        print(json.dumps(found))
    else:
        Console().print(as_table(found))


def decompress(run: Path, file: Path, /, *, out: Path, best: bool = False) -> None:
    """Write the images of a file that compress made.

    Args:
        run: the run's folder that it was made with.
        file: what compress wrote.
        out: a new folder, for a PNG of each image (.npy where it has neither 1 nor 3 channels).
        best: as it was given to compress.
    """
    import selfsup

    print(f"{out}: {len(selfsup.decompress(run, file, out=out, best=best))} images")


VERBS = (denoise, inpaint, colorize, compress, decompress)
"""In the order of `selfsup --help`."""
