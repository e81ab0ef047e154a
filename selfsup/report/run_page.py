"""RUN -> RUN/report.html: one file that opens from disk, asks the network for nothing and runs nothing that a name contains."""

from pathlib import Path
from typing import Any

from selfsup.report import facts
from selfsup.report.ability_pictures import abilities
from selfsup.report.accuracy import accuracy
from selfsup.report.curves import curves, warnings
from selfsup.report.data_uris import data_uris
from selfsup.report.html import write_page
from selfsup.report.neighbour_map import atlas
from selfsup.report.numbers import head, plain, visible
from selfsup.report.run_contents import Run, read_run

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
    kinds = max(len(found.views or ()), 1)
    return write_page(found.path / "report.html", "run.html", _contents(found), scripts=SCRIPTS, variables={"kinds": kinds})


def _contents(run: Run) -> dict[str, Any]:
    """Everything that the template names."""
    drawn, left_out = curves(run)
    measured, seen = accuracy(run), atlas(run)
    examples = _examples(run)
    warned = warnings(run)
    return {
        "run": run,
        "eyebrow": "Run report",
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
        "settings": facts.settings(run.config),
        "command": facts.command(run.config),
        "curves": drawn,
        "curves_left_out": left_out,
        "best": facts.best(run),
        "views": examples,
        "abilities": abilities(run),
        "atlas": seen,
        "skipped": (run.skipped or [])[:SKIPPED_SHOWN],
        "commands": facts.commands(run),
        "versions": facts.versions(run.config),
        "data": {
            "curves": drawn,
            "best": facts.best(run),
            "few": None if measured is None else {key: measured[key] for key in ("plot", "counts", "focus")},
            "map": None if isinstance(seen, str) else seen["map"],
        },
    }


def _examples(run: Run) -> list[list[dict[str, str]]] | None:
    """For every example its pictures: the original, then each view."""
    if not run.views:
        return None
    pictures = iter(data_uris([image for view in run.views.values() for image in view]))
    names = {key: head(visible(key).replace("_", " "), 24) for key in run.views}
    columns = [[{"view": names[key], "picture": next(pictures)} for _ in view] for key, view in run.views.items()]
    return [list(example) for example in zip(*columns, strict=True)]
