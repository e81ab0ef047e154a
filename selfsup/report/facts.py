"""What was run, in words: from config.json, status.json and the stored encoder."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import selfsup
from selfsup.methods import describe
from selfsup.report.curves import KNOWN, trained
from selfsup.report.numbers import UNKNOWN, compact, count, duration, head, plain, real, visible
from selfsup.report.run_contents import Run, lookup, read_json

LARGEST_HEADER = 16_000_000
"""Bytes of a safetensors header that are read; a ResNet-50's has 40 thousand."""

STATISTICS = re.compile(r"(^|\.)(mean|std|running_mean|running_var|num_batches_tracked)$")
"""Tensors of an encoder that are measured, not learned."""

Fact = tuple[str, str]


def about(method: str) -> dict[str, str]:
    """What a method's own file says of itself: title, paper, hidden, shown, predicted; nothing of a method that is not there."""
    try:
        said = describe(method)
    except (OSError, SyntaxError, ValueError):
        return {}
    found = {"title": said.title.rstrip(".")}
    if paper := re.search(r"https://[\w./-]+\w", said.paper):
        found["paper"] = paper[0]
    return found | {key: text[:1].upper() + text[1:] for key, text in vars(said).items() if key in ("hidden", "shown", "predicted")}


def facts(run: Run) -> list[tuple[str, list[Fact]]]:
    """Groups of (what, value) for the section "What was run"."""
    return [("Data", _data(run)), ("Training", _training(run)), ("Network", _network(run)), ("Machine", _machine(run))]


def _data(run: Run) -> list[Fact]:
    classes = run.recorded("data", "classes")
    skipped = run.recorded("data", "skipped") if run.skipped is None else len(run.skipped)
    side, channels = (run.recorded("data", key) for key in ("image_size", "channels"))
    found = [
        ("Source", _said(run.recorded("data", "source"))),
        ("Items", count(run.recorded("data", "items"))),
        ("Skipped", count(skipped)),
        ("Classes", f"{len(classes):,}, not used in training" if isinstance(classes, list) and classes else "none known"),
    ]
    if isinstance(text := run.recorded("encoder", "text"), dict):
        found.append(("Text", f"{count(text.get('length'))} tokens an item, a vocabulary of {count(channels)}"))
    elif real(side):
        found.append(("Image", f"{count(side)} × {count(side)} pixels, {count(channels)} channel{'' if channels == 1 else 's'}"))
    return [*found, ("Fingerprint", head(_said(run.recorded("data", "fingerprint")), 17))]


def _network(run: Run) -> list[Fact]:
    weights, width = parameters(run.path / "encoder" / "model.safetensors"), None
    if run.sample is not None:
        width = run.sample.embeddings.shape[1]
    found = [
        ("Encoder", _said(run.recorded("encoder", "name"))),
        ("Parameters", UNKNOWN if weights is None else compact(weights)),
        ("Vector", UNKNOWN if width is None else f"{width:,} numbers"),
    ]
    if said := reconstruction(run.path / "page" / "reconstruction.json"):
        found.append(("Reconstruction", said))
    spec = run.config.get("encoder")
    shown = ("name", "channels", "image_size", "text")  # all but the name stand under Data
    return [*found, *((_words(key), plain(value)) for key, value in (spec.items() if isinstance(spec, dict) else ()) if key not in shown)]


def _training(run: Run) -> list[Fact]:
    def said(key: str) -> Any:
        return run.recorded("training", key)

    budget = [f"{_amount(said(key))} {key}" for key in ("epochs", "steps", "minutes") if said(key) is not None]
    done = trained(run)
    schedule = _said(said("schedule"))
    if (warmup := real(said("warmup"))) is not None:
        schedule += f", warm-up {100 * warmup:.3g} %" if warmup <= 1 else f", warm-up {warmup:g} steps"
    return [
        ("Budget", ", ".join(budget) or UNKNOWN),
        ("Steps done", count(done["step"])),
        ("Images seen", count(done["images"])),
        ("Batch size", count(said("batch_size"))),
        ("Optimiser", _said(said("optimizer"))),
        ("Learning rate", _said(said("lr"))),
        ("Schedule", schedule),
        ("Weight decay", _said(said("weight_decay"))),
        ("Seed", UNKNOWN if said("seed") is None else str(said("seed"))),
    ]


def _machine(run: Run) -> list[Fact]:
    done = trained(run)
    device, devices = run.recorded("training", "device"), run.recorded("training", "devices")
    several = f"{count(devices)} × " if (real(devices) or 1) > 1 else ""
    threads = run.recorded("training", "threads")
    return [
        ("Device", several + _said(device) + (f", {count(threads)} threads" if device == "cpu" and real(threads) else "")),
        ("Precision", _said(run.recorded("training", "precision"))),
        ("Time", duration(done["seconds"])),
        ("Speed", UNKNOWN if done["rate"] is None else f"{count(done['rate'])} images/s"),
    ]


def options(run: Run) -> list[Fact]:
    """The method's own options."""
    stored = run.config.get("options")
    return [(_words(key), plain(value)) for key, value in stored.items()] if isinstance(stored, dict) else []


def versions(config: dict[str, Any]) -> list[Fact]:
    """Library -> version, that of this page first."""
    stored = config.get("versions")
    recorded = [(key, plain(value)) for key, value in stored.items()] if isinstance(stored, dict) else []
    return [("selfsup, of this page", selfsup.__version__), *recorded]


def settings(config: dict[str, Any]) -> str:
    """config.json as text, its list of classes cut where it is long."""
    shown, classes = dict(config), lookup(config, "data", "classes")
    if isinstance(classes, list) and len(classes) > 50:
        shown["data"] = {**config["data"], "classes": [*classes[:50], f"… and {len(classes) - 50:,} more"]}
    return head(json.dumps(shown, indent=2, ensure_ascii=False), 20_000)


def command(config: dict[str, Any]) -> str:
    """The command line as it was typed."""
    typed = config.get("command")
    if typed == "python":
        return "# started from Python, not from the command line"
    return head(plain(typed) if typed else UNKNOWN, 4000)


def parameters(path: Path) -> int | None:
    """Learned numbers of a stored encoder, from the file's header alone; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= LARGEST_HEADER else {}
        total = 0
        for name, tensor in header.items():
            if name != "__metadata__" and not STATISTICS.search(name):
                elements = 1
                for side in tensor["shape"]:
                    elements *= side
                total += elements
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return total or None


def reconstruction(path: Path) -> str:
    """What a code keeps of its inputs, beside principal components of the same width; nothing where that was not measured."""
    try:
        found = read_json(path)
    except (OSError, ValueError, RecursionError):
        return ""
    own, rival = (compact(found.get(key)) for key in ("squared_error", "pca_squared_error"))
    return f"squared error {own} of a value, beside {rival} with PCA of {count(found.get('width'))} components"


def title(run: Run) -> str:
    """The method and the data, "SimCLR on photos"."""
    method = plain(run.config.get("method", UNKNOWN))
    name = about(method).get("title", method if "method" in run.config else "A run").partition(":")[0]
    source = run.recorded("data", "source")
    return head(f"{name} on {Path(source).name or source}" if isinstance(source, str) and source else name, 90)


def summary(run: Run) -> str:
    """One sentence for somebody who has never seen such a page."""
    done, items = trained(run), run.recorded("data", "items")
    what = f"{count(items)} items" if real(items) is not None else "data"
    time = f" in {duration(done['seconds'])}" if done["seconds"] else ""
    return f"An encoder, trained on {what} without their labels{time}: what was run, how the training went, and what its vectors are worth."


def state(run: Run) -> dict[str, str]:
    """How the run ended: `word`, `tone` ("good", "busy", "bad" or "none") and `message`, all for the head of the page."""
    word = plain(run.status.get("state") or "state unknown")
    tones = {"finished": "good", "running": "busy", "stopped": "busy", "failed": "bad"}
    message = run.status.get("message")
    step, steps = (real(run.status.get(key)) for key in ("step", "steps"))
    if word != "finished" and step is not None and steps:
        word += f" at step {count(step)} of {count(steps)}"
    return {"word": head(word, 80), "tone": tones.get(str(run.status.get("state")), "none"), "message": plain(message) if message else ""}


def best(run: Run) -> dict[str, Any] | None:
    """The best checkpoint by the label-free measure: step, measure, value; None where there is none."""
    step, value = (real(lookup(run.status, "best", key)) for key in ("step", "value"))
    measure = plain(lookup(run.status, "best", "measure"))
    name = KNOWN[measure][0] if measure in KNOWN else measure
    name = name[:1].lower() + name[1:]
    return None if step is None else {"step": step, "measure": name, "value": compact(value)}


def commands(run: Run) -> dict[str, str]:
    """Lines to copy: Python that loads the encoder, and the commands, with the real path."""
    folder = str(run.path)
    quoted = visible(shlex.quote(folder))
    source = run.recorded("data", "source")
    data = shlex.quote(source) if isinstance(source, str) and Path(source).is_absolute() else "DATA"
    images = run.recorded("data", "image_size") != 0
    example = "images (B, C, H, W), values from 0 to 1" if images else "vectors (B, D), as they are in the data"
    what = '"photos/")  # (N, width) float32; a folder, an archive, an array, a list of paths'
    if run.recorded("encoder", "text"):
        example, what = "token numbers (B, T)", '["one text", "another"])  # (N, width) float32; or a file with a text a line'
    python = [
        "import selfsup",
        f"encoder = selfsup.load({str(run.path / 'encoder')!r})",
        f"vectors = encoder.embed({what}",
        f"names = encoder.open({what.partition(')')[0]}).names  # which item each row is",
        f"vectors = encoder(x)  # or of a tensor: {example}",
    ]
    return {
        "python": "\n".join(python),
        "embed": f"selfsup embed {quoted} {data} --out vectors.npy",
        "evaluate": f"selfsup evaluate {quoted} --train TRAIN --test TEST",
        "finetune": f"selfsup finetune {quoted} --train TRAIN --test TEST --labels 10 --out CLASSIFIER\n"
        f"selfsup predict CLASSIFIER {data} --out predictions.csv",
        "generate": f"selfsup generate {quoted} {data} --out MADE",
        "resume": f"selfsup pretrain --resume {quoted}",
        "report": f"selfsup report {quoted}",
        "verify": f"selfsup verify {quoted}",
    }


def _amount(value: Any) -> str:
    number = real(value)
    return plain(value) if number is None else f"{number:,.6g}" if number != round(number) else count(number)


def _said(value: Any) -> str:
    return UNKNOWN if value is None else plain(value)


def _words(key: str) -> str:
    return key.replace("_", " ")
