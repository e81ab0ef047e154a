"""The documents are run: a newcomer who follows them gets what they say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfsup.cli import run
from selfsup.tasks.methods_table import table

ROOT = Path(__file__).parent.parent


def test_the_page_on_adding_a_method_works_to_the_letter(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "selfsup", tmp_path / "selfsup", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    page = (ROOT / "docs/add-a-method.md").read_text()
    files = re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", page, re.DOTALL)
    assert [name for name, _ in files] == ["selfsup/methods/align_uniform.py", "tests/methods/test_align_uniform.py"]
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    [line] = re.findall(r"<!-- line -->\n```python\n(.*?)```", page, re.DOTALL)
    methods = tmp_path / "selfsup/methods/__init__.py"
    methods.write_text(methods.read_text().replace('    "gan": "GAN",\n', '    "gan": "GAN",\n' + line))
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8))
    for command in (
        ["pytest", "-q", "tests/methods/test_align_uniform.py", "-p", "no:cacheprovider"],
        ["selfsup", "pretrain", "align_uniform", "images.npy", "--steps", "2", "--batch-size", "8", "--out", "run", "--quiet"],
        ["selfsup", "methods"],
    ):
        done = subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "align_uniform" in done.stdout
    assert (tmp_path / "run/encoder/model.safetensors").exists()


def test_readme_has_the_table_of_methods() -> None:
    assert table() in (ROOT / "README.md").read_text(), "put the output of `python -m selfsup.tasks.methods_table` into README.md"


def test_every_line_of_the_tour_names_what_exists() -> None:
    for name in re.findall(r"^\| `([\w/.]+)`", (ROOT / "docs/tour.md").read_text(), re.MULTILINE):
        assert (ROOT / name).exists(), name


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_commands_and_the_python_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand, in a folder that has what they name; only ten minutes of training become a few updates."""
    draw = np.random.default_rng(0)
    for folder in ("photos", "new-photos", "labelled/cat", "labelled/dog", "held-out/cat", "held-out/dog"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / folder / f"{i}.png")
    readme = (ROOT / "README.md").read_text()
    [python] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert "minutes=10" in python
    (tmp_path / "example.py").write_text(python.replace("minutes=10", "steps=2, batch_size=8"))
    commands = re.findall(r"^(selfsup [a-z]+ .*?)  +#.*$", readme, re.MULTILINE)
    verbs = [command.split()[1] for command in commands]
    assert verbs == ["pretrain", "pretrain", "embed", "evaluate", "finetune", "predict", "detect", "verify", "compare"]
    short = commands[0].replace("--minutes 10", "--steps 2 --batch-size 8")
    assert short != commands[0]
    few = commands[3] + " --protocol knn,linear --scratch-images 64"
    tuned = commands[4] + " --steps 2 --lr 1e-3"
    contest = commands[8].replace("--minutes 10", "--images 16 --seeds 1")
    monkeypatch.chdir(tmp_path)
    for command in [short, *commands[1:3], few, tuned, *commands[5:8], contest]:
        assert run(command.split()[1:]) == 0, command + capsys.readouterr().err
    # kNN alone: the whole table takes a minute, and other tests make it
    quick = "import functools, runpy, selfsup; selfsup.evaluate = functools.partial(selfsup.evaluate, protocol=('knn',)); "
    example = [sys.executable, "-c", quick + "runpy.run_path('example.py')"]
    done = subprocess.run(example, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
