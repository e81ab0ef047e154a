"""The command line: parse, call, print. Results go to stdout, progress and errors to stderr.

Here: `pretrain`, what starts a command and what its end is called; the other commands are in the other files that are called cli.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Parameter, Token, convert
from rich.console import Console

from selfsup import __version__
from selfsup.cli import encoders, exchange, generate, labels, pictures, text
from selfsup.methods import METHODS, describe

STATUSES = """Exit statuses: 0 done; 1 failed; 2 wrong use; 3 too many unreadable files; 4 stored tensors damaged; 5 loss not finite; \
6 out of memory; 75 stopped by SIGTERM or SIGUSR1, saved, can be resumed; 130 stopped by Ctrl-C, saved."""


def _whole(kind: Any, tokens: Sequence[Token]) -> Any:
    """As cyclopts converts, which would round 1.5 steps to 2."""
    value = convert(kind, tokens)
    if type(value) is int and any("." in token.value and float(token.value) != value for token in tokens):
        raise ValueError(f"expected a whole number, got {tokens[0].value}")
    return value


app = App(
    name="selfsup",
    default_parameter=Parameter(converter=_whole),
    help="Learn from unlabelled data: hide a part of the input, predict it, keep the encoder.",
    help_epilogue=STATUSES,
    version=f"selfsup {__version__}",
    result_action="return_value",
)
pretrain_app = App(
    name="pretrain", help="Train an encoder on data without labels: selfsup pretrain METHOD DATA.", result_action="return_value"
)
app.command(pretrain_app)
for group in (encoders, labels, generate, pictures, text, exchange):
    for verb in group.VERBS:
        app.command(verb)


@pretrain_app.default
def resume_run(*, resume: Path, allow_data_change: bool = False, quiet: bool = False) -> None:
    """Train an encoder on data without labels: selfsup pretrain METHOD DATA, or go on with --resume RUN.

    Args:
        resume: a run's folder; it goes on exactly where it was.
        allow_data_change: resume although the data has changed.
        quiet: no progress on stderr.
    """
    from selfsup.tasks.pretraining.pretrain import pretrain

    _print_run(pretrain(resume=resume, allow_data_change=allow_data_change, quiet=quiet).path)


def _print_run(run: Path) -> None:
    if os.environ.get("RANK", "0") == "0":  # under torchrun, every process comes here
        print(run)


def main() -> None:
    """Entry point: every expected failure is one line on stderr and a status of its own."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; returns the exit status."""
    errors = Console(stderr=True, soft_wrap=True)
    try:
        _load_method(arguments)
        app(arguments, exit_on_error=False, error_console=errors)
    except CycloptsError:
        return 2  # cyclopts has said what was wrong
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        status, text = _status_of(error)
        print(f"selfsup: {text}", file=sys.stderr)
        return status
    return 0


def _load_method(arguments: list[str]) -> None:
    """Register the method that is asked for, so that only then its file, and torch, are imported."""
    if not arguments or arguments[0] != "pretrain":
        return
    words = [a for a in arguments[1:] if not a.startswith("-")]
    if len(arguments) > 1 and not arguments[1].startswith("-"):
        if any(a.split("=")[0] == "--resume" for a in arguments):
            raise ValueError(f"a run knows its method and its data, got {words[0]} beside --resume; selfsup pretrain --resume RUN")
        describe(words[0])  # an unknown method ends here, with the nearest name
        from selfsup.cli.method import method_command

        _register(method_command(words[0], _print_run), words[0])
    else:
        for method in METHODS:
            _register(_stub(method), method)


def _register(command: Callable[..., None], method: str) -> None:
    if method in list(pretrain_app):  # `run` may be called more than once in a process
        del pretrain_app[method]
    pretrain_app.command(command, name=method)


def _stub(method: str) -> Callable[[], None]:
    def command() -> None: ...

    command.__doc__ = describe(method).title
    return command


def _status_of(error: Exception) -> tuple[int, str]:
    """Exit status and one line; what nobody expected keeps its traceback, in a file."""
    by_name: dict[str, int] = {"BadDataError": 3, "DamagedError": 4, "NotFiniteError": 5, "OutOfMemoryError": 6, "MemoryError": 6}
    for cls in type(error).__mro__:
        if cls.__name__ in by_name:
            return by_name[cls.__name__], str(error)
    if type(error).__name__ == "Stopped":
        number = error.signal_number  # type: ignore[attr-defined]
        return (130 if number == 2 else 75), f"{error}: saved; go on with --resume and its folder"
    if type(error).__name__ == "WorkersFailedError":
        return error.status, str(error)  # type: ignore[attr-defined]
    if isinstance(error, ValueError):
        return 2, str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return 1, f"{where}{error.strerror or error}"
    return 1, _crash(error)


def _crash(error: Exception) -> str:
    import tempfile
    import traceback

    if os.environ.get("SELFSUP_TRACEBACK"):
        traceback.print_exception(error)
    with tempfile.NamedTemporaryFile("w", prefix="selfsup-crash-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    return f"{type(error).__name__}: {error} (this is a fault of selfsup; what happened is in {file.name})"
