"""Map, neighbours and pictures: places keep their distances, nobody is his own neighbour, and thumbnails are where the script looks."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfsup.report.data_uris import PICTURES_BYTES, SPRITE_BYTES, data_uris, sprite
from selfsup.report.neighbour_map import NEIGHBOURS, QUERIES, atlas
from selfsup.report.page_files import save_sample
from selfsup.report.run_contents import read_run


def decoded(uri: str) -> Image.Image:
    start = "data:image/png;base64,"
    assert uri.startswith(start)
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(start))))


def atlas_of(run: Path, embeddings: np.ndarray, labels: np.ndarray | None = None, **changes: Any) -> Any:
    (run / "config.json").write_text('{"data": {"classes": ["ant", "bee"]}}')
    names = [f"item {i}" for i in range(len(embeddings))]
    save_sample(run, **{"embeddings": embeddings, "thumbnails": None, "labels": labels, "names": names} | changes)
    return atlas(read_run(run))


def test_neighbours_are_the_most_similar_others(tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(60, 5))
    z[7] = 3 * z[8]  # the same direction: an item is found before itself
    found = atlas_of(tmp_path, z)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    similarity = unit @ unit.T
    for i, near in enumerate(found["map"]["neighbours"]):
        naive = sorted((j for j in range(60) if j != i), key=lambda j: -similarity[i, j])[:NEIGHBOURS]
        np.testing.assert_allclose(similarity[i, near], similarity[i, naive], atol=1e-6)  # copies may come in any order
        assert len({*near, i}) == NEIGHBOURS + 1
    for row in found["rows"]:
        assert row["name"] not in [near["name"] for near in row["neighbours"]]
    assert len(found["rows"]) == QUERIES


def test_items_that_are_all_alike_still_have_other_neighbours(tmp_path: Path) -> None:
    found = atlas_of(tmp_path, np.ones((30, 4)))
    assert all(i not in near and len(set(near)) == NEIGHBOURS for i, near in enumerate(found["map"]["neighbours"]))


def test_places_lie_in_the_unit_square_with_one_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.evaluation.projection.project", lambda z: z[:, :2])
    places = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0], [10.0, 5.0]]) + 3
    drawn = atlas_of(tmp_path, places)["map"]
    assert drawn["x"] == [0.0, 1.0, 0.0, 1.0]
    assert drawn["y"] == [0.25, 0.25, 0.75, 0.75]


def test_more_classes_than_colours(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(40), np.arange(1, 41))
    found = atlas_of(tmp_path, np.random.default_rng(0).normal(size=(len(labels), 3)), labels)["map"]
    assert found["coloured"] == list(range(30, 40))  # the ten largest
    assert found["order"] == [*range(30, 40), *reversed(range(30))]
    assert found["classes"][39] == ["class 39", 40]
    few = atlas_of(tmp_path, np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2)["map"]
    assert few["classes"] == {0: ["ant", 10], 1: ["bee", 10]}


def test_vectors_that_are_not_finite_are_left_out_and_counted(tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(20, 3))
    z[4, 1], z[9, 0] = np.nan, np.inf
    found = atlas_of(tmp_path, z)
    assert found["notes"] == ["2 vectors are not finite and were left out."]
    assert found["items"] == 18
    assert "item 4" not in found["map"]["names"]
    assert atlas_of(tmp_path, z[:3]) == "A map needs at least 4 items, and the sample has 3."
    assert atlas_of(tmp_path, np.full((9, 2), np.nan)) == "A map needs at least 4 items, and the sample has 0."


@pytest.mark.parametrize("shape", [(7, 8, 8, 1), (50, 20, 30, 3), (5, 100, 60, 3)])
def test_every_thumbnail_is_in_its_tile(shape: tuple[int, ...]) -> None:
    grays = (np.arange(shape[0]) * 5 + 5).astype(np.uint8)
    sheet = sprite(np.ones(shape, np.uint8) * grays[:, None, None, None])
    picture, side = decoded(sheet["image"]), sheet["side"]
    assert picture.info == {}  # no metadata
    for i, gray in enumerate(grays):
        middle = (i % sheet["columns"] * side + side // 2, i // sheet["columns"] * side + side // 2)
        assert np.asarray(picture.convert("L"))[middle[1], middle[0]] == gray


def test_pictures_shrink_until_they_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8)
    sheet = sprite(noise)
    assert len(base64.b64decode(sheet["image"].partition(",")[2])) <= SPRITE_BYTES
    assert sheet["side"] >= 16
    pictures = data_uris(list(noise[:80]))
    assert sum(len(uri) * 3 / 4 for uri in pictures) <= PICTURES_BYTES * 1.01
    assert decoded(data_uris([np.zeros((8, 8, 1), np.uint8)])[0]).size == (64, 64)  # small ones are enlarged by whole pixels
    assert decoded(data_uris([np.zeros((500, 250, 3), np.uint8)])[0].replace(" ", "")).size == (48, 96)
