"""What holds for every encoder, fusion and side; `tower_cases` is the list."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmm  # noqa: F401

tf = pytest.importorskip("tensorflow")

import tower_cases  # noqa: E402
from tower_cases import BATCH, CASES, DIM, ENCODERS, SAVED, SIDES, TURNS  # noqa: E402

every_case = pytest.mark.parametrize(("encoder", "fusion", "side"), CASES)
sides_in_turn = pytest.mark.parametrize(("encoder", "fusion", "side"), TURNS)


@every_case
def test_a_tower_gives_unit_vectors_and_rows_do_not_see_each_other(
    encoder: str, fusion: Any, side: Any
):
    tower = tower_cases.tower(encoder, fusion, side)
    features = tower_cases.features(encoder, side)
    together = tower(features, training=True).numpy()
    assert together.shape == (BATCH, DIM)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    for row in range(BATCH):
        alone = tower(tower_cases.take_row(features, row), training=True)
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@sides_in_turn
def test_what_stands_in_padding_and_absent_history_changes_no_bit(
    encoder: str, fusion: Any, side: Any
):
    tower = tower_cases.tower(encoder, fusion, side)
    clean = tower_cases.features(encoder, side)
    clean = _padded(clean, tower_cases.ENCODERS[encoder], garbage=False)
    dirty = _padded(
        tower_cases.features(encoder, side), tower_cases.ENCODERS[encoder], garbage=True
    )
    np.testing.assert_array_equal(tower(clean), tower(dirty))
    for variable, gradient in _gradients(tower, dirty):
        assert gradient is None or np.isfinite(gradient).all(), variable.name


@sides_in_turn
def test_gradients_reach_trainable_encoders_and_no_frozen_one(encoder: str, fusion: Any, side: Any):
    features = tower_cases.features(encoder, side)
    modality = ENCODERS[encoder]
    for trainable in (True, False):
        tower = tower_cases.tower(encoder, fusion, side, trainable=trainable)
        assert tower.is_frozen(modality) is not trainable
        reached = [
            gradient is not None and np.abs(gradient).max() > 0
            for _, gradient in _gradients(tower, features, tower.encoders[modality].variables)
        ]
        assert any(reached) is trainable
        assert bool(tower.encoders[modality].trainable_variables) is trainable
        assert tower.joint.trainable_variables


@sides_in_turn
def test_a_checkpoint_brings_every_weight_back(
    encoder: str, fusion: Any, side: Any, tmp_path: Path
):
    tower = tower_cases.tower(encoder, fusion, side)
    features = tower_cases.features(encoder, side)
    before = tower(features).numpy()
    saved = tf.train.Checkpoint(tower=tower).write(str(tmp_path / "weights"))
    for variable in tower.trainable_variables:
        variable.assign(variable * 0.5 + 0.1)
    assert np.abs(tower(features).numpy() - before).max() > 1e-3
    tf.train.Checkpoint(tower=tower).read(saved).assert_consumed()
    np.testing.assert_array_equal(tower(features), before)


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One SavedModel with a function for each case of `SAVED`, sizes dynamic as at serving."""
    module = tf.Module()
    towers = {case: tower_cases.tower(*case) for case in SAVED}
    module.weights = [v for tower in towers.values() for v in tower.variables]
    for (encoder, fusion, side), tower in towers.items():
        features = tower_cases.features(encoder, side)
        spec = {
            name: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name=name.replace("/", "_"))
            for name, value in features.items()
        }
        function = tf.function(tower.__call__, input_signature=[spec], autograph=False)
        setattr(module, f"{encoder}_{fusion}_{side}", function)
    folder = str(tmp_path_factory.mktemp("saved"))
    tf.saved_model.save(module, folder)
    return tf.saved_model.load(folder)


@pytest.mark.parametrize(("encoder", "fusion", "side"), SAVED)
def test_a_reloaded_tower_answers_as_the_one_in_memory(
    reloaded: Any, encoder: str, fusion: Any, side: Any
):
    tower = tower_cases.tower(encoder, fusion, side)
    function = getattr(reloaded, f"{encoder}_{fusion}_{side}")
    features = tower_cases.features(encoder, side)
    np.testing.assert_allclose(function(features), tower(features), atol=1e-5)
    for row in range(BATCH):
        alone = tower_cases.take_row(features, row)
        np.testing.assert_allclose(function(alone), tower(alone), atol=1e-5)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoded_features_stand_in_for_raw_ones(encoder: str, side: Any):
    tower = tower_cases.tower(encoder, "weighted", side, trainable=False)
    modality = ENCODERS[encoder]
    features = tower_cases.features(encoder, side)
    own = {k: v for k, v in features.items() if k.startswith(f"{modality}/")}
    raw = {k.partition("/")[2]: v for k, v in own.items() if k != f"{modality}/row"}
    encoded = tower.encoders[modality].encode(raw)
    assert encoded.shape == (2, tower.encoders[modality].output_width)
    cached = {k: v for k, v in features.items() if k not in own or k.endswith("/row")}
    cached[f"{modality}/encoded"] = encoded
    np.testing.assert_allclose(tower(cached), tower(features), atol=1e-6)


def _padded(features: dict[str, Any], modality: str, *, garbage: bool) -> dict[str, Any]:
    """Two rows of padding before and after a modality's, and history that is not there."""
    made = dict(features)
    for name, value in features.items():
        if not name.startswith(f"{modality}/"):
            continue
        shape = [2, *value.shape[1:]]
        if name.endswith("/row"):
            padding = tf.fill(shape, -1)
        elif value.dtype == tf.float32:
            padding = tf.fill(shape, np.nan if garbage else 0.0)
        else:
            padding = tf.cast(tf.fill(shape, 200 if garbage else 0), value.dtype)
        made[name] = tf.concat([padding, value, padding], axis=0)
    if garbage and "history/items" in made:
        absent = made["history/known"][:, :, tf.newaxis] == 0
        made["history/items"] = tf.where(absent, np.nan, made["history/items"])
    return made


def _gradients(tower: Any, features: dict[str, Any], variables: Any = None) -> Any:
    variables = tower.variables if variables is None else variables
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tower(features, training=True)[:, 0])
    gradients = tape.gradient(loss, variables)
    return [
        (variable, None if gradient is None else tf.convert_to_tensor(gradient).numpy())
        for variable, gradient in zip(variables, gradients, strict=True)
    ]
