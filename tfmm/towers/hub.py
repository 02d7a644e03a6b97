"""TF-Hub modules: building tfmm's own small ones, and finding those that a handle names."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_hub as hub

from tfmm.config import Config
from tfmm.errors import TfmmError
from tfmm.towers import modules

_COMPRESSED = "?tf-hub-format=compressed"
_LOAD_ERRORS = (OSError, ValueError, RuntimeError, tf.errors.OpError)
BERT_INPUTS = ("input_word_ids", "input_mask", "input_type_ids")


class _Reusable(tf.Module):
    """A network in the interface of reusable TF2 SavedModels, which hub.KerasLayer trains.

    https://www.tensorflow.org/hub/reusable_saved_models
    """

    variables: Any = None
    trainable_variables: Any = None

    def __init__(self, network: tf.Module, signature: Any) -> None:
        super().__init__()
        self.network = network
        self.variables = list(network.variables)
        self.trainable_variables = list(network.trainable_variables)
        self.regularization_losses: list[Callable[[], tf.Tensor]] = []
        for training in (False, True):
            self.__call__.get_concrete_function(signature, training=training)

    @tf.function
    def __call__(self, inputs: Any, training: bool = False) -> tf.Tensor:
        return self.network(inputs, training)


def build_text_module(
    path: str | Path, *, vocabulary_size: int, width: int, ngram_buckets: int, seed: int
) -> None:
    """Writes a module `{"ids": int32 [C, L], "ngrams": int32 [C, G]} -> float32 [C, width]`.

    Id 0 is padding. With `ngram_buckets = 0` the module reads `ids` alone.
    """
    network = modules.TextNetwork(
        vocabulary_size=vocabulary_size, width=width, ngram_buckets=ngram_buckets, seed=seed
    )
    names = ["ids", "ngrams"] if ngram_buckets else ["ids"]
    signature = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in names}
    _save(network, signature, Path(path))


def build_image_module(
    path: str | Path, *, channels: tuple[int, ...], width: int, seed: int
) -> None:
    """Writes a module `float32 [C, H, W, 3] in 0..1 -> float32 [C, width]`."""
    network = modules.ImageNetwork(channels=channels, width=width, seed=seed)
    _save(network, tf.TensorSpec([None, None, None, 3], tf.float32), Path(path))


def build_audio_module(
    path: str | Path, *, mel_bins: int, channels: int, width: int, seed: int
) -> None:
    """Writes a module of log-mel frames `float32 [C, T, mel_bins] -> float32 [C, width]`."""
    network = modules.AudioNetwork(mel_bins=mel_bins, channels=channels, width=width, seed=seed)
    _save(network, tf.TensorSpec([None, None, mel_bins], tf.float32), Path(path))


def small_module(modality: str, config: Config, *, vocabulary_size: int) -> Path:
    """The folder of a recipe's small module of one modality, built where it is missing.

    The folder's name carries a fingerprint of the parameters and of the networks' source, so a
    module is built once and never taken for another. It is built aside and renamed: a folder of
    this name is always whole.
    """
    build, parameters = _small_parameters(modality, config, vocabulary_size)
    source = Path(modules.__file__).read_bytes()
    recipe = json.dumps(parameters, sort_keys=True).encode()
    fingerprint = hashlib.sha256(recipe + source).hexdigest()[:12]
    target = Path(config.tower.hub_dir) / f"{modality}-{fingerprint}"
    if not target.is_dir():
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        build(aside, **parameters)
        try:
            aside.rename(target)
        except OSError:
            # Another process was first; its module is the same as ours.
            shutil.rmtree(aside)
            if not target.is_dir():
                raise
    return target


def resolve(handle: str) -> str:
    """The folder of the module that a handle names, downloaded when it is remote.

    Args:
      handle: A local folder, or an http(s):// or gs:// handle, which tensorflow_hub downloads
        (http with `?tf-hub-format=compressed`) and caches under `TFHUB_CACHE_DIR`.

    Raises:
      TfmmError: The handle is Kaggle's own, or there is no SavedModel behind it.
    """
    if handle.startswith("kaggle:") or "kaggle.com/" in handle:
        raise TfmmError(
            "hub handle: expected a folder, or an http(s) or gs handle of a compressed module,"
            f" received {handle!r}; download it from Kaggle, unpack it and give its folder"
        )
    remote = "://" in handle
    try:
        # tensorflow_hub asks for the compressed format by itself.
        path = str(hub.resolve(handle.removesuffix(_COMPRESSED))) if remote else handle
        found = bool(tf.saved_model.contains_saved_model(path))
    except (*_LOAD_ERRORS, EOFError, tarfile.TarError, zlib.error) as error:
        raise TfmmError(
            f"hub handle: expected a module that can be downloaded, received {handle!r}: {error}"
        ) from error
    if not found:
        where = "in the archive" if remote else "in the folder"
        raise TfmmError(f"hub handle: expected a SavedModel {where}, received {handle!r}")
    return path


def load(handle: str, *, trainable: bool) -> Any:
    """The `hub.KerasLayer` of a reusable TF2 SavedModel.

    Raises:
      TfmmError: The handle cannot be resolved, or what it names is not such a module.
    """
    path = resolve(handle)
    try:
        layer = hub.KerasLayer(path, trainable=trainable)
    except _LOAD_ERRORS as error:
        raise _not_reusable(handle, str(error)) from error
    if getattr(layer.resolved_object, "_is_hub_module_v1", False):
        raise _not_reusable(handle, "a module of the TF1 Hub format")
    if trainable and not layer.trainable_weights:
        raise TfmmError(
            f"hub handle: expected a module with trainable variables, received {handle!r};"
            " set trainable = false for it"
        )
    return layer


class TextPreprocessing(tf.Module):
    """A preprocessing module in front of a text encoder: string `[C]` to a dict of int32 `[C, L]`.

    Holds the loaded module, so that its tables are exported with whatever holds this.
    """

    def __init__(self, module: Any, max_tokens: int) -> None:
        super().__init__()
        self.module = module
        self._packs = hasattr(module, "tokenize") and hasattr(module, "bert_pack_inputs")
        self._max_tokens = max_tokens

    def __call__(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Word ids, mask and type ids of each text."""
        if self._packs:
            length = tf.constant(self._max_tokens)
            return self.module.bert_pack_inputs([self.module.tokenize(text)], seq_length=length)
        return self.module(text)


def load_text_preprocessing(handle: str, max_tokens: int) -> TextPreprocessing:
    """The preprocessing module of a text encoder.

    Args:
      handle: A module that is called with strings `[C]`; see `resolve`.
      max_tokens: L, where the module has `tokenize` and `bert_pack_inputs`, as those of BERT have;
        a module without them says its own L.

    Raises:
      TfmmError: The handle cannot be resolved, or what it names does not turn strings into the
        inputs of a BERT-like encoder.
    """
    import tensorflow_text  # noqa: F401, PLC0415 - registers the ops of such modules

    path = resolve(handle)
    try:
        preprocessing = TextPreprocessing(hub.load(path), max_tokens)
        received: Any = sorted(preprocessing(tf.constant([""])))
    except (*_LOAD_ERRORS, TypeError) as error:
        received = " ".join(str(error).split())[:300]
    if received != sorted(BERT_INPUTS):
        raise TfmmError(
            f"text.preprocessing: expected a module that turns strings into"
            f" {', '.join(BERT_INPUTS)}, received {handle!r}: {received}"
        )
    return preprocessing


def _not_reusable(handle: str, received: str) -> TfmmError:
    return TfmmError(
        f"hub handle: expected a reusable TF2 SavedModel at {handle!r}, received {received}"
    )


def _small_parameters(
    modality: str, config: Config, vocabulary_size: int
) -> tuple[Callable[..., None], dict[str, Any]]:
    match modality:
        case "text":
            text = config.text
            return build_text_module, {
                "vocabulary_size": vocabulary_size,
                "width": text.width,
                "ngram_buckets": text.ngram_buckets,
                "seed": config.seed,
            }
        case "image":
            image = config.image
            return build_image_module, {
                "channels": image.channels,
                "width": image.width,
                "seed": config.seed,
            }
        case "audio":
            audio = config.audio
            return build_audio_module, {
                "mel_bins": audio.mel_bins,
                "channels": audio.channels,
                "width": audio.width,
                "seed": config.seed,
            }
        case _:
            raise AssertionError(f"no small module of {modality}")


def _save(network: tf.Module, signature: Any, path: Path) -> None:
    tf.saved_model.save(_Reusable(network, signature), str(path))
