"""`selfsup pretrain METHOD`: a command made of `pretrain`'s signature and of the method's constructor, with their docstrings.

There is no second list of options: what Python takes, the command line takes.
"""

import functools
import inspect
import json
import operator
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cyclopts import Parameter
from docstring_parser import parse

from selfsup.methods import describe, method_class
from selfsup.tasks.pretraining.dry_run import describe_plan
from selfsup.tasks.pretraining.plan import method_options
from selfsup.tasks.pretraining.pretrain import pretrain

DATA = "A folder, .zip, .tar, .npy, .npz, parquet or .csv; a folder in an archive as data.zip/train, classes as data.csv?label=COLUMN."
TEXT_DATA = "A .txt, .jsonl, .parquet or .conllu file, also as .gz, or a folder of them."
OF_TEXT = ("tokenizer", "vocabulary_size", "min_count", "sequence_length", "column", "documents", "lowercase")
OF_IMAGES = ("image_size", "channels", "workers", "cache")
FROM_PYTHON_ONLY = ("data", "method", "resume", "allow_data_change", "options")
PLAIN = (int, float, str, bool, Path, type(None))


def method_command(method: str, show: Callable[[Path], None]) -> Callable[..., None]:
    """The command of a method.

    Args:
        method: one of `METHODS`.
        show: prints a finished run.
    """
    cls = method_class(method)
    facts = describe(method)
    other = OF_IMAGES if facts.modality == "text" else OF_TEXT
    common = {name: p for name, p in inspect.signature(pretrain).parameters.items() if name not in (*FROM_PYTHON_ONLY, *other)}
    about = TEXT_DATA if facts.modality == "text" else DATA
    data = inspect.Parameter("data", inspect.Parameter.POSITIONAL_ONLY, annotation=Annotated[str, Parameter(help=about)])
    own = _options(cls.__init__, method_options(method), cls.__doc__, f"Options of {method}")
    every = _options(pretrain, common, pretrain.__doc__, "Options of every method")

    def command(data: str, /, **arguments: Any) -> None:
        run = pretrain(data, method, **arguments)
        if arguments.get("dry_run"):
            print(describe_plan(json.loads((run.path / "plan.json").read_text())))
            for views in sorted(run.path.glob("views.*")):
                print(f"{'views':<11}  {views}")
        else:
            show(run.path)

    command.__doc__ = f"{facts.title} {facts.paper}\n\nHidden: {facts.hidden}\n\nShown: {facts.shown}\n\nPredicted: {facts.predicted}"
    command.__annotations__ = {}  # the signature has them all
    setattr(command, "__signature__", inspect.Signature([data, *own, *every]))  # noqa: B010 - a function has no such attribute to a checker
    return command


def _options(target: Any, parameters: dict[str, inspect.Parameter], docstring: str | None, group: str) -> list[inspect.Parameter]:
    texts = {name.strip(): p.description or "" for p in parse(docstring or "").params for name in p.arg_name.split(",")}
    hints = get_type_hints(target)
    found = []
    for name, p in parameters.items():
        hint: Any = _for_the_command_line(hints.get(name, str))
        negative = "--no-" + name.replace("_", "-") if hint is bool else ()
        about = Parameter(help=texts.get(name, ""), group=group, negative=negative)
        found.append(p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[hint, about]))
    return found


def _for_the_command_line(hint: Any) -> Any:
    """A type without the parts that only Python can give, such as modules."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    kept = [a for a in get_args(hint) if a in PLAIN or get_origin(a) in (Literal, tuple)]
    if str in kept and Path in kept:
        kept.remove(str)
    return functools.reduce(operator.or_, kept)
