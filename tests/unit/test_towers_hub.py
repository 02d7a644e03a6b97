import dataclasses
from pathlib import Path
from typing import Any

import hub_miniatures
import numpy as np
import pytest

import tfmm  # noqa: F401
from tfmm.config import AudioConfig, Config, ImageConfig, TextConfig, TowerConfig
from tfmm.errors import TfmmError

tf = pytest.importorskip("tensorflow")

from tfmm.towers import hub  # noqa: E402

SMALL = ("text", "image", "audio")
WIDTH = 8


def build(modality: str, path: Path, seed: int = 0) -> None:
    match modality:
        case "text":
            hub.build_text_module(path, vocabulary_size=30, width=8, ngram_buckets=20, seed=seed)
        case "image":
            hub.build_image_module(path, channels=(4, 8), width=8, seed=seed)
        case _:
            hub.build_audio_module(path, mel_bins=6, channels=8, width=8, seed=seed)


def example(modality: str, rows: int = 4, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    match modality:
        case "text":
            ids = random.integers(1, 30, (rows, 6)).astype(np.int32)
            ngrams = random.integers(1, 20, (rows, 9)).astype(np.int32)
            return {"ids": tf.constant(ids), "ngrams": tf.constant(ngrams)}
        case "image":
            return tf.constant(random.random((rows, 16, 12, 3), np.float32))
        case _:
            return tf.constant(random.normal(size=(rows, 20, 6)).astype(np.float32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    for modality in SMALL:
        build(modality, folder / modality)
    return folder


def rows_of(inputs: Any, rows: Any) -> Any:
    return tf.nest.map_structure(lambda x: tf.gather(x, rows), inputs)


@pytest.mark.parametrize("modality", SMALL)
def test_a_small_module_gives_one_vector_a_row(folder: Path, modality: str):
    layer = hub.load(str(folder / modality), trainable=True)
    encoded = layer(example(modality))
    assert encoded.shape == (4, WIDTH)
    assert np.isfinite(encoded.numpy()).all()
    assert encoded.numpy().std(axis=0).min() > 1e-3


@pytest.mark.parametrize("modality", SMALL)
def test_a_row_does_not_see_its_neighbours(folder: Path, modality: str):
    layer = hub.load(str(folder / modality), trainable=True)
    inputs = example(modality)
    together = layer(inputs, training=True).numpy()
    for row in range(4):
        alone = layer(rows_of(inputs, [row]), training=True)
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize("modality", SMALL)
def test_one_seed_gives_one_module_and_another_seed_another(
    folder: Path, tmp_path: Path, modality: str
):
    build(modality, tmp_path / "same")
    build(modality, tmp_path / "other", seed=1)
    inputs = example(modality)
    reference, same, other = (
        hub.load(str(path), trainable=True)(inputs).numpy()
        for path in (folder / modality, tmp_path / "same", tmp_path / "other")
    )
    np.testing.assert_array_equal(reference, same)
    assert np.abs(reference - other).max() > 1e-2


@pytest.mark.parametrize("modality", SMALL)
def test_every_weight_of_a_small_module_learns(folder: Path, modality: str):
    layer = hub.load(str(folder / modality), trainable=True)
    for variable in layer.trainable_variables:
        noise = np.random.default_rng(1).normal(size=variable.shape, scale=0.1)
        variable.assign_add(noise.astype(np.float32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(example(modality), training=True)[:, 0] ** 2)
    gradients = tape.gradient(loss, layer.trainable_variables)
    for variable, gradient in zip(layer.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.name
        assert np.abs(tf.convert_to_tensor(gradient).numpy()).max() > 0, variable.name


@pytest.mark.parametrize("modality", SMALL)
def test_a_small_module_trains_under_xla_without_freezing_its_weights(folder: Path, modality: str):
    """A weight that XLA takes for a constant costs a compilation in every step."""
    layer = hub.load(str(folder / modality), trainable=True)
    variables = layer.trainable_variables

    def gradients(inputs: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(inputs, training=True) ** 2)
        return loss, [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]

    compiled = tf.function(gradients, jit_compile=True, autograph=False)
    plain, fast = gradients(example(modality)), compiled(example(modality))
    for left, right in zip(tf.nest.flatten(plain), tf.nest.flatten(fast), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)
    program = compiled.experimental_get_compiler_ir(example(modality))(stage="hlo")
    for variable in variables:
        shape = ",".join(map(str, variable.shape))
        parameters = [line for line in program.splitlines() if " parameter(" in line]
        assert any(f"f32[{shape}]" in line for line in parameters), variable.name
    assert "ReadVariableOp" not in "".join(
        line for line in program.splitlines() if " constant({" in line
    )


@pytest.mark.parametrize("height", [16, 33])
def test_the_image_module_takes_photos_of_any_size(folder: Path, height: int):
    layer = hub.load(str(folder / "image"), trainable=True)
    assert layer(tf.zeros([2, height, 20, 3])).shape == (2, WIDTH)


def test_text_ignores_padding_and_survives_nothing_but_padding(folder: Path):
    layer = hub.load(str(folder / "text"), trainable=True)
    inputs = example("text")
    padded = {k: tf.pad(v, [[0, 0], [0, 5]]) for k, v in inputs.items()}
    np.testing.assert_allclose(layer(padded), layer(inputs), atol=1e-5)
    nothing = tf.nest.map_structure(tf.zeros_like, inputs)
    assert np.isfinite(layer(nothing).numpy()).all()
    no_ngrams = inputs | {"ngrams": tf.zeros_like(inputs["ngrams"])}
    assert np.abs(layer(no_ngrams).numpy() - layer(inputs).numpy()).max() > 1e-3


def test_text_knows_the_order_of_words(folder: Path):
    layer = hub.load(str(folder / "text"), trainable=True)
    ids = tf.constant([[3, 4, 5, 6]])
    ngrams = tf.zeros([1, 2], tf.int32)
    forward = layer({"ids": ids, "ngrams": ngrams}).numpy()
    backward = layer({"ids": ids[:, ::-1], "ngrams": ngrams}).numpy()
    assert np.abs(forward - backward).max() > 1e-3


def test_text_without_ngrams_reads_ids_alone(tmp_path: Path):
    hub.build_text_module(tmp_path, vocabulary_size=30, width=8, ngram_buckets=0, seed=0)
    layer = hub.load(str(tmp_path), trainable=True)
    assert layer({"ids": example("text")["ids"]}).shape == (4, WIDTH)


def test_silence_and_loudness_do_not_break_audio(folder: Path):
    layer = hub.load(str(folder / "audio"), trainable=True)
    assert np.isfinite(layer(tf.zeros([1, 20, 6])).numpy()).all()
    sound = example("audio", rows=1)
    np.testing.assert_allclose(layer(sound + 5.0), layer(sound), atol=1e-3)


def recipe(folder: Path, **changes: Any) -> Config:
    config = Config(
        text=TextConfig(width=8, ngram_buckets=20),
        image=ImageConfig(width=8, channels=(4, 8)),
        audio=AudioConfig(width=8, channels=8, mel_bins=6),
        tower=TowerConfig(hub_dir=str(folder)),
    )
    return dataclasses.replace(config, **changes)


def test_a_small_module_is_built_once_under_a_name_of_its_parameters(tmp_path: Path):
    config = recipe(tmp_path)
    path = hub.small_module("image", config, vocabulary_size=0)
    assert path.parent == tmp_path
    assert path.name.startswith("image-")
    written = (path / "saved_model.pb").stat().st_mtime_ns
    assert hub.small_module("image", config, vocabulary_size=7) == path
    assert (path / "saved_model.pb").stat().st_mtime_ns == written
    other = recipe(tmp_path, image=ImageConfig(width=8, channels=(4, 4)))
    assert hub.small_module("image", other, vocabulary_size=0) != path
    reseeded = recipe(tmp_path, seed=1)
    assert hub.small_module("image", reseeded, vocabulary_size=0) != path
    assert sorted(p.name[0] for p in tmp_path.iterdir()) == ["i"] * 3


def test_a_build_that_dies_leaves_no_module_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def die(network: Any, signature: Any, path: Path) -> None:
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hub, "_save", die)
        with pytest.raises(KeyboardInterrupt):
            hub.small_module("audio", recipe(tmp_path), vocabulary_size=0)
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    path = hub.small_module("audio", recipe(tmp_path), vocabulary_size=0)
    assert hub.load(str(path), trainable=True)(tf.zeros([1, 20, 6])).shape == (1, WIDTH)


@pytest.mark.parametrize(
    "handle", ["kaggle://google/yamnet", "https://www.kaggle.com/models/google/yamnet/tensorFlow2"]
)
def test_a_kaggle_handle_says_what_to_do(handle: str):
    with pytest.raises(TfmmError, match="download it from Kaggle, unpack it and give its folder"):
        hub.resolve(handle)


def test_a_folder_without_a_module_is_said_to_be_so(tmp_path: Path):
    with pytest.raises(TfmmError, match="expected a SavedModel in the folder"):
        hub.resolve(str(tmp_path))


def test_what_is_not_a_reusable_module_is_refused(tmp_path: Path):
    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec([None])])
    tf.saved_model.save(module, str(tmp_path / "no_call"), signatures=module.f)
    with pytest.raises(TfmmError, match="expected a reusable TF2 SavedModel"):
        hub.load(str(tmp_path / "no_call"), trainable=False)


def test_a_module_without_variables_cannot_be_trainable(tmp_path: Path):
    handle = hub_miniatures.save(hub_miniatures.Preprocessing(), tmp_path / "module")
    with pytest.raises(TfmmError, match="expected a module with trainable variables"):
        hub.load(handle, trainable=True)


def test_a_preprocessing_module_gives_the_inputs_of_bert(tmp_path: Path):
    plain = hub_miniatures.save(hub_miniatures.Preprocessing(), tmp_path / "plain")
    made = hub.load_text_preprocessing(plain, 4)(tf.constant(["abc"]))
    assert sorted(made) == sorted(hub.BERT_INPUTS)
    codes = [ord(c) % 50 for c in "abc"]
    np.testing.assert_array_equal(made["input_word_ids"], [codes + [0] * 7])


def test_a_preprocessing_module_that_packs_is_asked_for_max_tokens(tmp_path: Path):
    handle = hub_miniatures.save(hub_miniatures.PackingPreprocessing(), tmp_path / "packs")
    preprocessing = hub.load_text_preprocessing(handle, 4)
    assert preprocessing(tf.constant(["efghijkl", "z"]))["input_mask"].numpy().tolist() == [
        [1, 1, 1, 1],
        [1, 0, 0, 0],
    ]


def test_a_module_that_is_no_preprocessing_is_refused(tmp_path: Path):
    handle = hub_miniatures.save(hub_miniatures.Strings(), tmp_path / "module")
    with pytest.raises(TfmmError, match="expected a module that turns strings into"):
        hub.load_text_preprocessing(handle, 4)
