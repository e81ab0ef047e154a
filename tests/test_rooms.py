"""Imports go down the list of rooms only, the core imports lazily, and nothing that is loaded may execute."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "selfsup"
# Each room and what it may import of the others; method.py, abilities.py, distributed.py, locks.py and losses.py are everybody's.
COMMON = {"method", "abilities", "distributed", "locks", "losses"}
MAY = {
    "data": set(),
    "views": set(),
    "models": {"views"},
    "methods": {"views", "models"},
    "engine": set(),
    "evaluation": {"data", "views", "engine"},
    "report": {"evaluation", "methods"},
    "tasks": {"data", "views", "models", "methods", "engine", "evaluation", "report"},
}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "selfsup":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("selfsup.")}
    return found - COMMON - {"__version__"}


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_only_rooms_before_it(room: str) -> None:
    files = sorted((PACKAGE / room).glob("*.py"))
    assert files
    for path in files:
        assert imported(path) <= MAY[room] | {room}, path


def test_only_the_engine_and_one_file_name_torch_distributed() -> None:
    named = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py") if "torch.distributed" in path.read_text()}
    assert named <= {"distributed.py", "engine"}


def test_the_engine_names_no_method() -> None:
    from selfsup.methods import METHODS

    for path in (PACKAGE / "engine").glob("*.py"):
        words = set(re.findall(r"\w+", path.read_text().lower()))
        assert not words & set(METHODS), path


def test_nothing_that_is_loaded_can_execute() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"}, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "os.system"}, f"{path}: {called}"
                if called == "torch.load":  # of other people's .bin files: tensors only
                    assert "weights_only=True" in ast.unparse(node), f"{path}: {called}"
                for keyword in node.keywords:
                    value = isinstance(keyword.value, ast.Constant) and keyword.value.value
                    assert not (keyword.arg in {"shell", "allow_pickle", "trust_remote_code"} and value), f"{path}: {called}"


def test_help_needs_no_torch() -> None:
    code = "import sys, selfsup.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
