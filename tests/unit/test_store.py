import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from tfmm.data.store import FeatureStore

BATCHES: list[dict[str, Any]] = [
    {
        "row": np.arange(3, dtype=np.int32),
        "image/row": np.array([0, 2], dtype=np.int32),
        "image/pixels": np.array([[1, 1], [2, 2]], dtype=np.uint8),
        "text/row": np.array([1], dtype=np.int32),
        "text/ids": np.array([[7]], dtype=np.int32),
    },
    {
        "row": np.arange(2, dtype=np.int32),
        "image/row": np.array([1], dtype=np.int32),
        "image/pixels": np.array([[3, 3]], dtype=np.uint8),
        "text/row": np.array([], dtype=np.int32),
        "text/ids": np.zeros((0, 1), dtype=np.int32),
    },
]


def test_rows_come_back_as_they_were_written(tmp_path: Path):
    store = FeatureStore.write(tmp_path / "s", BATCHES, stamp="x")
    assert store.rows == 5
    assert store.has("image").tolist() == [True, False, True, False, True]
    gathered = store.gather("image", np.array([4, 1, 2, -1]))
    assert gathered["image/pixels"].tolist() == [[3, 3], [0, 0], [2, 2], [0, 0]]


def test_packed_holds_present_rows_only(tmp_path: Path):
    store = FeatureStore.write(tmp_path / "s", BATCHES, stamp="x")
    packed = store.packed(np.array([1, 4]))
    assert packed["row"].tolist() == [0, 1]
    assert packed["image/row"].tolist() == [1]
    assert packed["image/pixels"].tolist() == [[3, 3]]
    assert packed["text/row"].tolist() == [0]
    assert packed["text/ids"].tolist() == [[7]]


def test_a_store_made_from_something_else_is_not_taken(tmp_path: Path):
    FeatureStore.write(tmp_path / "s", BATCHES, stamp="x")
    assert FeatureStore.open_if_current(tmp_path / "s", "x") is not None
    assert FeatureStore.open_if_current(tmp_path / "s", "y") is None
    assert FeatureStore.open_if_current(tmp_path / "none", "x") is None


def test_a_store_that_was_cut_off_leaves_nothing_in_place(tmp_path: Path):
    def broken():
        yield BATCHES[0]
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        FeatureStore.write(tmp_path / "s", broken(), stamp="x")
    assert not (tmp_path / "s").exists()
    assert FeatureStore.write(tmp_path / "s", BATCHES, stamp="x").rows == 5


def test_a_modality_that_no_row_has_is_no_modality(tmp_path: Path):
    store = FeatureStore.write(tmp_path / "s", [BATCHES[1]], stamp="x")
    assert store.modalities() == ("image",)
    assert store.has("text").tolist() == [False, False]
