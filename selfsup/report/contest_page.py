"""CONTEST -> CONTEST/contest.html: which method suits these data and this budget, how sure that is, and what it cost."""

from pathlib import Path
from typing import Any

from selfsup.report import facts
from selfsup.report.contest_charts import agreement, bars, few, race
from selfsup.report.contest_contents import Contest, Entrant, read_contest
from selfsup.report.contest_table import COLUMNS, table
from selfsup.report.html import write_page
from selfsup.report.numbers import UNKNOWN, compact, count, duration, head, listing, plain, real, visible
from selfsup.report.run_contents import lookup

RUNS_SHOWN = 400
WARNINGS_SHOWN = 40
RUN_COLUMNS = {key: column for key, column in COLUMNS.items() if key != "few_label"}

UNLABELLED = (
    "Without labels nobody can say which vectors are most useful, only which have the properties that useful vectors tend to have.",
    "These measures were made to compare checkpoints and settings of one method, and are better at that than at comparing methods: "
    "a method can spread its vectors over many directions that mean nothing to you.",
    "Take this ranking as a hint: labels of a few items of each class would let accuracy decide instead.",
)
"""How far a ranking by label-free measures can be trusted."""


def write_contest(folder: Path) -> Path:
    """Write FOLDER/contest.html from what lies in the folder of a contest, and from nothing else.

    Every file but contest.json may be missing, damaged or half done: the page then says so. The same folder gives the same page, byte for
    byte.

    Args:
        folder: of a contest: contest.json, results.jsonl (a line a run) and result.json.

    Returns:
        The page's path.

    Raises:
        ValueError: the folder has no readable contest.json.
        OSError: the page cannot be written.
    """
    contest = read_contest(folder)
    page = contest.path / "contest.html"
    styles, scripts = ("style.css", "contest.css"), ("charts.js", "contest.js")
    return write_page(page, "contest.html", _contents(contest), styles=styles, scripts=scripts)


def _contents(contest: Contest) -> dict[str, Any]:
    """Everything that the templates name."""
    drawn = {"race": race(contest), "few": few(contest), "agreement": agreement(contest)}
    warned = _warnings(contest)
    return {
        "eyebrow": "Contest between methods",
        "path": visible(str(contest.path)),
        "title": _title(contest),
        "summary": _summary(contest),
        "state": _state(contest),
        "contest": contest,
        "advice": _advice(contest),
        "table": table(contest),
        "seeds": real(contest.recorded("seeds")),
        "ranked_by": contest.result.get("ranked_by"),
        "warnings": warned[:WARNINGS_SHOWN],
        "more_warnings": len(warned) - WARNINGS_SHOWN,
        "labelled": contest.config.get("labelled") is not False,
        "unlabelled": UNLABELLED,
        "bars": bars(contest),
        "methods": [_method(contest, entrant) for entrant in contest.entrants],
        "facts": _facts(contest),
        "command": facts.command(contest.config),
        "settings": facts.settings(contest.config),
        "run_columns": ["Method", "Seed", "State", *(column.title for column in RUN_COLUMNS.values())],
        "runs": [_run(contest, run) for run in contest.runs[:RUNS_SHOWN]],
        "more_runs": len(contest.runs) - RUNS_SHOWN,
        "versions": facts.versions(contest.config),
        **drawn,
        "data": {
            **drawn,
            "names": [entrant.name for entrant in contest.entrants],
            "looks": [[entrant.key, entrant.look, entrant.marker] for entrant in contest.entrants],
        },
    }


def _title(contest: Contest) -> str:
    """ "4 methods on photos"."""
    if not contest.entrants:
        return "A contest"
    source = contest.recorded("data", "source")
    methods = f"{len(contest.entrants):,} method{'' if len(contest.entrants) == 1 else 's'}"
    return head(f"{methods} on {Path(source).name or source}" if isinstance(source, str) and source else methods, 90)


def _summary(contest: Contest) -> str:
    """One sentence for somebody who has never seen such a page."""
    items, seeds, budget = contest.recorded("data", "items"), real(contest.recorded("seeds")), _budget(contest)
    given = "the same budget" if budget == UNKNOWN else budget
    times = "" if seeds is None else ", once" if seeds == 1 else f", {count(seeds)} times with other random numbers"
    data = "data" if real(items) is None else f"{count(items)} items"
    return f"Every method was given {given}{times}, to learn from the same {data} on the same machine: which one suits them?"


def _budget(contest: Contest) -> str:
    """Of each run: "2 minutes" or "100,000 images, to the nearest step of its batches"."""
    minutes, images = (real(contest.recorded("budget", key)) for key in ("minutes", "images"))
    if minutes is not None:
        return f"{minutes:,.4g} minute{'' if minutes == 1 else 's'}" if minutes >= 1 else f"{60 * minutes:.3g} seconds"
    kind = "images" if contest.recorded("data", "kind") == "image" else "items"
    return UNKNOWN if images is None else f"{count(images)} {kind}, to the nearest step of its batches"


def _state(contest: Contest) -> dict[str, str]:
    """How far the contest came: `word`, `tone` and `message` for the head of the page."""
    done, expected = len(contest.runs), contest.expected
    failed = sum(run.get("state") == "failed" for run in contest.runs)
    broken = f", {count(failed)} of them failed" if failed else ""
    if expected is None:
        return {"word": f"{count(done)} runs are done{broken}, of how many is not known", "tone": "none", "message": ""}
    if done < expected:
        word = f"{count(done)} of {count(expected)} runs are done{broken}"
        return {"word": word, "tone": "busy", "message": "The contest is not over: everything below is of the runs that are done."}
    return {"word": f"finished: {count(done)} runs{broken}", "tone": "bad" if failed else "good", "message": ""}


def _advice(contest: Contest) -> list[str]:
    """Sentences; the first one is the headline."""
    stored = contest.result.get("advice")
    said = [head(sentence, 600) for sentence in stored if isinstance(sentence, str) and sentence] if isinstance(stored, list) else []
    if said:
        return [sentence.replace(" %", "\N{NO-BREAK SPACE}%") for sentence in said]
    why = f"result.json is {contest.missing['result.json']}" if "result.json" in contest.missing else "result.json holds no advice"
    return ["No answer yet.", f"{head(why, 300)}."]


def _warnings(contest: Contest) -> list[dict[str, Any]]:
    """Failures and warnings by method: name, text, and in how many of its runs, or with which seeds, it came."""
    found = []
    for entrant in contest.entrants:
        finished, failed = (contest.runs_of(entrant, state) for state in ("finished", "failed"))
        errors: dict[str, list[str]] = {}
        for run in failed:
            error = run.get("error")
            text = f"Failed: {error if isinstance(error, str) and error else 'no reason recorded'}"
            errors.setdefault(text, []).append(plain(run["seed"]))
        for text, seeds in errors.items():
            where = f"Seed{'' if len(seeds) == 1 else 's'} {listing(seeds)}"
            found.append({"key": entrant.key, "name": entrant.name, "text": text, "where": where})
        times: dict[str, int] = {}
        for run in (*finished, *failed):
            for text in dict.fromkeys(_texts(run.get("warnings"))):
                times[text] = times.get(text, 0) + 1
        for text in dict.fromkeys([*times, *_texts(lookup(contest.result, "methods", entrant.id, "warnings"))]):
            where = f"In {count(times[text])} of {count(len(finished) + len(failed))} runs" if text in times else ""
            found.append({"key": entrant.key, "name": entrant.name, "text": text, "where": where})
    return found


def _texts(stored: Any) -> list[str]:
    return [text for text in stored if isinstance(text, str) and text] if isinstance(stored, list) else []


def _method(contest: Contest, entrant: Entrant) -> dict[str, Any]:
    """What a method is, from its own file, and the network that it trained."""
    runs = contest.runs_of(entrant)
    network = ""
    if runs and isinstance(runs[-1].get("encoder"), str):
        parameters = real(runs[-1].get("parameters"))
        network = runs[-1]["encoder"] + ("" if parameters is None else f", {compact(parameters)} parameters")
    return {"name": entrant.name, "key": entrant.key, "look": entrant.look, "network": network, **facts.about(entrant.id)}


def _facts(contest: Contest) -> list[tuple[str, list[facts.Fact]]]:
    """Groups of (what, value) for the section "How it was run"."""
    return [("Data", _data(contest)), ("Budget", _given(contest)), ("Measures", _measures(contest)), ("Machine", _machine(contest))]


def _data(contest: Contest) -> list[facts.Fact]:
    classes, side = contest.recorded("data", "classes"), real(contest.recorded("data", "image_size"))
    test = contest.config.get("test")
    found = [
        ("Source", _said(contest.recorded("data", "source"))),
        ("Items", count(contest.recorded("data", "items"))),
        ("Test data", "none given" if test is None else plain(test)),
        ("Classes", f"{len(classes):,}, not used in training" if isinstance(classes, list) and classes else "none known"),
    ]
    if contest.recorded("data", "kind") == "vector":
        return [*found, ("Kind", "vectors")]
    return [*found, ("Image", f"{count(side)} × {count(side)} pixels")] if side else found


def _given(contest: Contest) -> list[facts.Fact]:
    encoder = contest.config.get("encoder")
    return [
        ("Each run", _budget(contest)),
        ("Methods", count(len(contest.entrants))),
        ("Seeds", _said(contest.config.get("seeds"))),
        ("Runs done", count(len(contest.runs)) + ("" if contest.expected is None else f" of {count(contest.expected)}")),
        ("Encoder", "each method's own" if encoder is None else f"{plain(encoder)} for all"),
    ]


def _measures(contest: Contest) -> list[facts.Fact]:
    by = {"knn_top1": "kNN accuracy", "label-free": "measures without labels"}
    on, watched = contest.config.get("evaluated_on"), contest.config.get("watched")
    accuracy = "not measured" if contest.config.get("labelled") is False else UNKNOWN
    if isinstance(on, list) and len(on) == 2:
        accuracy = f"learned on {count(on[0])}, tested on {count(on[1])} items"
    return [
        ("Ranked by", by.get(_said(contest.result.get("ranked_by")), UNKNOWN)),
        ("Accuracy", accuracy),
        ("Label-free", UNKNOWN if watched is None else f"on {count(watched)} items"),
    ]


def _machine(contest: Contest) -> list[facts.Fact]:
    seconds = [value for run in contest.runs if (value := real(run.get("seconds"))) is not None]
    return [("Machine", _said(contest.config.get("machine"))), ("All runs", duration(sum(seconds)) if seconds else UNKNOWN)]


def _said(value: Any) -> str:
    return UNKNOWN if value is None else plain(value)


def _run(contest: Contest, run: dict[str, Any]) -> list[str]:
    """One line of the table of all runs: method, seed, state, then RUN_COLUMNS."""
    name = next(entrant.name for entrant in contest.entrants if entrant.id == run["method"])
    state = head(plain(run["state"]), 40) if "state" in run else "–"
    figures = [(column, real(run.get(key))) for key, column in RUN_COLUMNS.items()]
    return [name, plain(run["seed"]), state, *("–" if value is None else column.printed(value) for column, value in figures)]
