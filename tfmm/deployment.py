"""What a version brings for its server beside the graph: warm-up requests, batching parameters."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from tfmm.artifacts import WARMUP_REQUESTS, InputSpec
from tfmm.contract import RATE_HZ, SIGNATURE_OF
from tfmm.records.sound_headers import wav_header

BATCHING_PARAMETERS = "batching_params.pbtxt"
"""Where servers look with --enable_per_model_batching_parameters."""

_MEDIA = ("image", "audio")
_PRODUCT = "embed_product"
_STOCK = "in_stock_only"
# Inputs that name products.
_NAMING = {"product_id", "history"}
_BATCHING = """\
# For a server with --enable_batching --enable_per_model_batching_parameters, or with
# --enable_batching --batching_parameters_file=<this file>. Every input and output of the signatures
# has the batch first. Nobody waits for company; threads are as many as the machine has cores.
max_batch_size { value: 64 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 16 }
"""
Request = tuple[str, dict[str, list[Any]]]


def warmup_requests(
    specs: Mapping[str, Mapping[str, InputSpec]], *, product_id: str, text: str
) -> list[Request]:
    """Signature and inputs of one row, for each signature.

    They hold nothing, each thing alone, all at once, and all under a rule.

    Args:
      specs: Inputs by signature.
      product_id: A product of the catalogue.
      text: Words of it.
    """
    requests: list[Request] = []
    unread = {name for name, narrow in SIGNATURE_OF.items() if narrow not in specs}
    for signature, inputs in specs.items():
        parts = _parts(signature, inputs, product_id, text)
        if signature != _PRODUCT:
            parts = {name: value for name, value in parts.items() if name not in unread}
        held = [{}, *({name: value} for name, value in parts.items()), parts]
        if _STOCK in inputs:
            held.append(parts | {_STOCK: [True]})
        requests += [(signature, one) for n, one in enumerate(held) if one not in held[:n]]
    return requests


def _parts(
    signature: str, inputs: Mapping[str, InputSpec], product_id: str, text: str
) -> dict[str, list[Any]]:
    """What a query, or a product, of this signature may hold; one row each."""
    parts: dict[str, list[Any]] = {"image": [_photo()], "audio": [_sound()]}
    if signature == _PRODUCT:
        parts |= {name: [text] for name in inputs if name not in _MEDIA}
        parts["product_id"] = [product_id]
    else:
        parts |= {"text": [text], "product_id": [product_id]}
        if "history" in inputs:
            width = inputs["history"].shape[1] or 1
            parts["history"] = [[""] * (width - 1) + [product_id]]
    return {name: value for name, value in parts.items() if name in inputs}


def write_deployment(version: Path, model: str, requests: Sequence[Request]) -> None:
    """Writes a version's warm-up requests and batching parameters.

    Args:
      version: The version's folder.
      model: The model's name.
      requests: What `warmup_requests` made, and a model has answered: a server does not load a
        version that fails on one of them.
    """
    path = version / WARMUP_REQUESTS
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                dtype = tf.bool if name == _STOCK else tf.string
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))
            writer.write(log.SerializeToString())
    (version / BATCHING_PARAMETERS).write_text(_BATCHING, encoding="utf-8")


def renew_requests(former: Path, version: Path, product_ids: Sequence[str]) -> None:
    """Writes a version's warm-up requests as a former one has them, of products that are there.

    Args:
      former: The version whose requests they are.
      version: The version that gets them.
      product_ids: Its catalogue; the first stands for those that are gone.
    """
    known, first = set(product_ids), product_ids[0].encode()
    path = version / WARMUP_REQUESTS
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in tf.data.TFRecordDataset(str(former / WARMUP_REQUESTS)):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            for name in _NAMING & set(log.predict_log.request.inputs):
                values = log.predict_log.request.inputs[name].string_val
                there = [not one or one.decode() in known for one in values]
                values[:] = [one if it else first for one, it in zip(values, there, strict=True)]
            writer.write(log.SerializeToString())


def _photo() -> bytes:
    """A JPEG of 224x224 in which brightness and colour change."""
    ramp = np.linspace(0, 255, 224).astype(np.uint8)
    red, green = np.meshgrid(ramp, ramp)
    file = io.BytesIO()
    Image.fromarray(np.stack([red, green, red[::-1]], axis=2)).save(file, "JPEG")
    return file.getvalue()


def _sound() -> bytes:
    """A WAV of one second, 440 Hz."""
    wave = np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)
    samples = np.rint(8_000 * wave).astype("<i2").tobytes()
    return wav_header(len(samples), rate_hz=RATE_HZ, channels=1, bits=16) + samples
