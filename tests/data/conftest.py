"""Shared by the tests of this room: the corpus of bad inputs, a small folder of images, a cache that never leaves the test."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

_SPEC = importlib.util.spec_from_file_location("selfsup_tests_corpus", Path(__file__).with_name("corpus.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_CORPUS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_CORPUS)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def corpus() -> ModuleType:
    """tests/data/corpus.py."""
    return _CORPUS


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of PNG images, 24 x 24, `per_class` in each of the classes."""

    def make(classes: tuple[str, ...] = ("cat", "dog"), per_class: int = 3, name: str = "photos") -> Path:
        seed = 0
        for label in classes:
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(per_class):
                _CORPUS.picture(seed).save(tmp_path / name / label / f"{i}.png")
                seed += 1
        return tmp_path / name

    return make
