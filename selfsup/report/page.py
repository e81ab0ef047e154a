"""RUN -> RUN/report.html: one file that opens from disk, asks the network for nothing and runs nothing that a name contains."""

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import selfsup
from selfsup.report import facts
from selfsup.report.accuracy import accuracy, labels
from selfsup.report.atlas import atlas
from selfsup.report.curves import curves, warnings
from selfsup.report.folder import Run, read_run
from selfsup.report.pictures import data_uris
from selfsup.report.words import compact, count, head, listing, plain, tail, visible

HERE = Path(__file__).parent
SCRIPTS = ("charts.js", "map.js", "controls.js", "page.js")
SKIPPED_SHOWN = 200
WARNINGS_SHOWN = 20


def write_report(run: Path) -> Path:
    """Write RUN/report.html from what lies in the run folder, and from nothing else.

    Every file but config.json may be missing or damaged: the page then says so. The same folder gives the same page, byte for byte.

    Args:
        run: a run folder.

    Returns:
        The page's path; under 3 MB.

    Raises:
        ValueError: the folder has no readable config.json.
        OSError: the page cannot be written.
    """
    found = read_run(run)
    html = _environment().get_template("template.html").render(_contents(found))
    page = found.path / "report.html"
    beside = page.with_name(f".report.html.{os.getpid()}")
    try:
        beside.write_text(html, encoding="utf-8", newline="\n")
        beside.replace(page)  # a reader meets the old page or the new one, never half of one
    finally:
        beside.unlink(missing_ok=True)
    return page


def _environment() -> Environment:
    # Autoescape is off by default in Jinja2; every name on this page comes from somebody's files.
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    # No NaN: JSON.parse refuses it, and with it the whole page's data. No ASCII escapes: names in other scripts are long enough.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    filters = (count, compact, plain, head, tail, labels, listing)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


def _contents(run: Run) -> dict[str, Any]:
    """Everything that the template names."""
    drawn, left_out = curves(run)
    measured, seen = accuracy(run), atlas(run)
    examples = _examples(run)
    warned = warnings(run)
    return {
        "run": run,
        "path": visible(str(run.path)),
        "title": facts.title(run),
        "summary": facts.summary(run),
        "state": facts.state(run),
        "about": facts.about(plain(run.config.get("method"))),
        "accuracy": measured,
        "warnings": warned[:WARNINGS_SHOWN],
        "more_warnings": len(warned) - WARNINGS_SHOWN,
        "facts": facts.facts(run),
        "options": facts.options(run),
        "settings": facts.settings(run),
        "command": _command(run),
        "curves": drawn,
        "curves_left_out": left_out,
        "best": facts.best(run),
        "views": examples,
        "atlas": seen,
        "skipped": (run.skipped or [])[:SKIPPED_SHOWN],
        "commands": facts.commands(run),
        "versions": [("selfsup, of this page", selfsup.__version__), *facts.versions(run)],
        "data": {
            "curves": drawn,
            "best": facts.best(run),
            "few": None if measured is None else {key: measured[key] for key in ("plot", "counts", "focus")},
            "map": None if isinstance(seen, str) else seen["map"],
        },
        **_inlined(len(run.views or ())),
    }


def _command(run: Run) -> str:
    command = run.config.get("command")
    if command == "python":
        return "# started from Python, not from the command line"
    return head(plain(command) if command else "not recorded", 4000)


def _examples(run: Run) -> list[list[dict[str, str]]] | None:
    """For every example its pictures: the original, then each view."""
    if not run.views:
        return None
    pictures = iter(data_uris([image for view in run.views.values() for image in view]))
    names = {key: head(visible(key).replace("_", " "), 24) for key in run.views}
    columns = [[{"view": names[key], "picture": next(pictures)} for _ in view] for key, view in run.views.items()]
    return [list(example) for example in zip(*columns, strict=True)]


def _inlined(kinds: int) -> dict[str, Any]:
    """Style and script with the only content security policy under which they, and nothing else, are allowed."""
    style = (HERE / "style.css").read_text(encoding="utf-8") + f":root{{--kinds:{max(kinds, 1)}}}\n"
    script = '"use strict";\n' + "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    return {"style": Markup(style), "script": Markup(script), "policy": policy}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
