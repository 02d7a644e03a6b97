import dataclasses
from pathlib import Path
from typing import Any

import hub_miniatures
import numpy as np
import pytest

import tfmm  # noqa: F401
from tfmm.config import AudioConfig, Config, ImageConfig, TextConfig
from tfmm.errors import TfmmError

tf = pytest.importorskip("tensorflow")

from tfmm.towers import hub  # noqa: E402
from tfmm.towers.encoders import make_encoder  # noqa: E402

BERT = Config(text=TextConfig(preprocessing="some", max_query_tokens=3))


def test_a_feature_vector_module_sees_pixels_in_0_to_1(tmp_path: Path):
    module = hub_miniatures.FeatureVector()
    encoder = make_encoder("image", Config(), handle=hub_miniatures.save(module, tmp_path / "m"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    expected = (pixels / 255.0).mean(axis=(1, 2)) @ module.kernel.numpy()
    np.testing.assert_allclose(encoder({"pixels": pixels}), expected, rtol=1e-4, atol=1e-5)
    assert encoder.output_width == 5


@pytest.mark.parametrize("trainable", [True, False])
def test_only_a_trainable_module_runs_in_training_mode(tmp_path: Path, trainable: bool):
    handle = hub_miniatures.save(hub_miniatures.FeatureVector(), tmp_path / "module")
    config = Config(image=ImageConfig(trainable=trainable))
    encoder = make_encoder("image", config, handle=handle)
    pixels = {"pixels": tf.zeros([1, 4, 4, 3], tf.uint8)}
    mode = 100.0 if trainable else 0.0
    np.testing.assert_array_equal(encoder(pixels, training=True), np.full((1, 5), mode))
    np.testing.assert_array_equal(encoder(pixels, training=False), np.zeros((1, 5)))
    np.testing.assert_array_equal(encoder.encode(pixels), np.zeros((1, 5)))
    assert encoder.is_frozen() is not trainable
    assert len(encoder.trainable_variables) == int(trainable)
    assert len(encoder.variables) == 1


def test_a_bert_like_module_gives_its_pooled_output(tmp_path: Path):
    module = hub_miniatures.Bert()
    encoder = make_encoder("text", BERT, handle=hub_miniatures.save(module, tmp_path / "m"))
    ids = np.array([[3, 4, 5], [6, 0, 0]], np.int32)
    mask = (ids != 0).astype(np.int32)
    features = dict(zip(hub.BERT_INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))
    kernel = module.kernel.numpy()
    expected = [kernel[3] + kernel[4] + kernel[5], kernel[6]]
    np.testing.assert_allclose(encoder(features), expected, rtol=1e-5)


def test_a_yamnet_like_module_hears_one_waveform_at_a_time(tmp_path: Path):
    module = hub_miniatures.Yamnet()
    config = Config(audio=AudioConfig(front="waveform", seconds=0.1))
    encoder = make_encoder("audio", config, handle=hub_miniatures.save(module, tmp_path / "m"))
    waveform = np.random.default_rng(0).normal(size=(3, 1600)).astype(np.float32)
    for row, encoded in zip(waveform, encoder({"waveform": waveform}).numpy(), strict=True):
        frames = [row[start : start + 400] for start in range(0, 1201, 200)]
        expected = np.mean(frames @ module.kernel.numpy(), axis=0)
        np.testing.assert_allclose(encoded, expected, rtol=1e-3, atol=1e-4)


def test_a_yamnet_like_module_trains_under_xla(tmp_path: Path):
    config = Config(audio=AudioConfig(front="waveform", seconds=0.1))
    handle = hub_miniatures.save(hub_miniatures.Yamnet(), tmp_path / "module")
    encoder = make_encoder("audio", config, handle=handle)

    def gradient(waveform: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(encoder({"waveform": waveform}, training=True) ** 2)
        return tape.gradient(loss, encoder.trainable_variables[0])

    waveform = tf.constant(np.random.default_rng(0).normal(size=(3, 1600)).astype(np.float32))
    compiled = tf.function(gradient, jit_compile=True, autograph=False)(waveform)
    np.testing.assert_allclose(compiled, gradient(waveform), rtol=1e-3, atol=1e-3)


def test_a_module_that_reads_strings_is_refused(tmp_path: Path):
    handle = hub_miniatures.save(hub_miniatures.Strings(), tmp_path / "module")
    with pytest.raises(TfmmError, match="strings never reach the device") as caught:
        make_encoder("text", Config(), handle=handle)
    assert handle in str(caught.value)


@pytest.mark.parametrize(
    ("modality", "module", "config"),
    [
        ("image", hub_miniatures.Bert, Config()),
        ("text", hub_miniatures.FeatureVector, Config()),
        ("text", hub_miniatures.Yamnet, BERT),
        ("audio", hub_miniatures.FeatureVector, Config(audio=AudioConfig(front="waveform"))),
    ],
)
def test_a_module_of_another_contract_is_one_sentence(
    tmp_path: Path, modality: str, module: Any, config: Config
):
    handle = hub_miniatures.save(module(), tmp_path / "module")
    with pytest.raises(TfmmError, match=rf"^{modality}\.handle: expected a module that") as caught:
        make_encoder(modality, config, handle=handle)
    assert "\n" not in str(caught.value)
    assert handle in str(caught.value)


def test_one_waveform_module_serves_where_log_mel_was_asked_only_with_a_sentence(tmp_path: Path):
    handle = hub_miniatures.save(hub_miniatures.Yamnet(), tmp_path / "module")
    config = dataclasses.replace(Config(), audio=AudioConfig(front="log_mel"))
    with pytest.raises(TfmmError, match=r"audio\.handle: expected a module that reads log_mel"):
        make_encoder("audio", config, handle=handle)
