"""Late fusion: the parts of a vector, and what they make of a score."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfmm  # noqa: F401
from tfmm.config import Config, LateFusion, TowerConfig, config_from_dict, vector_dim
from tfmm.errors import TfmmError
from tfmm.towers.joint import Joint
from tfmm.towers.tower import Tower

DIM, WEIGHT = 4, 1.5
WIDTHS = {"text": 5, "image": 7}
TEXT, PHOTO, BOTH, NONE = [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]


class Pass:
    """An encoder that tests go past."""

    output_width = 3


def tower(side: Any, *, late: LateFusion | None = None) -> Tower:
    late = late or LateFusion(image=WEIGHT)
    config = Config(tower=TowerConfig(dim=DIM, width=8, late=late, query=("text", "image")))
    joint = Joint(config, WIDTHS, seed=3)
    encoders: dict[str, Any] = {"text": Pass(), "image": Pass()}
    return Tower(side, config, encoders, joint=joint)


def tokens(rows: int) -> Any:
    values = np.random.default_rng(0).normal(size=(rows, 2, 8))
    return tf.constant(values.astype(np.float32))


def vectors(side: Any, present: list[list[float]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The fused unit vectors, those of the photo alone, and what the tower makes of them."""
    made = tower(side)
    given = tokens(len(present)), tf.constant(present)
    monkeypatch.setattr(made, "tokens", lambda *_: given)
    alone = made.joint.alone("image", *given)
    features = {name: tf.range(len(present)) for name in ("row", "text/row", "image/row")}
    return made.joint(*given).numpy(), alone.numpy(), made(features).numpy()


def test_a_query_holds_its_photo_weighted_and_zeros_without_one(monkeypatch: pytest.MonkeyPatch):
    fused, photo, found = vectors("query", [TEXT, PHOTO, BOTH, NONE], monkeypatch)
    for row, has_photo in enumerate([False, True, True, False]):
        expected = np.concatenate([fused[row], has_photo * WEIGHT * photo[row]])
        np.testing.assert_allclose(found[row], expected / np.linalg.norm(expected), atol=1e-6)
    assert np.abs(fused[2] - photo[2]).max() > 0.01


def test_a_product_without_a_photo_has_its_fused_vector_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
):
    fused, photo, found = vectors("product", [TEXT, PHOTO, BOTH], monkeypatch)
    for row, own in enumerate([fused[0], photo[1], photo[2]]):
        expected = np.concatenate([fused[row], own]) / np.sqrt(2.0)
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_words_rank_products_as_the_fused_vectors_do(monkeypatch: pytest.MonkeyPatch):
    asked, _, query = vectors("query", [TEXT] * 3, monkeypatch)
    told, _, product = vectors("product", [TEXT, PHOTO, BOTH], monkeypatch)
    np.testing.assert_allclose(query @ product.T, asked @ told.T / np.sqrt(2.0), atol=1e-6)


def test_every_modality_named_adds_its_part():
    late = LateFusion(text=0.5, image=1.0)
    config = Config(tower=TowerConfig(dim=DIM, late=late))
    assert vector_dim(config) == 3 * DIM
    assert vector_dim(Config(tower=TowerConfig(dim=DIM))) == DIM
    made = tower("query", late=late)
    parts = {"text": tf.ones([1, DIM]), "image": tf.fill([1, DIM], 2.0)}
    found = made.vector(tf.zeros([1, DIM]), parts, tf.constant([BOTH])).numpy()[0]
    np.testing.assert_allclose(found, np.repeat([0.0, 0.5, 2.0], DIM) / np.sqrt(17.0), atol=1e-6)


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"tower": {"late": {"audio": 1.0}}}, "tower.late.audio: expected a modality of queries"),
        (
            {"tower": {"late": {"image": 1.0}}, "image": {"handle": ""}},
            "tower.late.image: expected image.handle, it is empty",
        ),
        ({"tower": {"late": {"image": -1.0}}}, "tower.late.image: expected 0..100"),
        ({"tower": {"late": {"place": 1.0}}}, "tower.late.place: expected one of audio"),
    ],
)
def test_a_modality_that_cannot_be_compared_is_refused(tree: Any, sentence: str):
    with pytest.raises(TfmmError) as caught:
        config_from_dict(tree)
    assert sentence in str(caught.value)
