"""Recorded requests that a version answers before clients see it, so that none waits for it."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow_serving.apis import prediction_log_pb2

from tfmm.artifacts import WARMUP_REQUESTS
from tfmm.serving.examples import classify, multi_inference, regress
from tfmm.serving.predict import predict
from tfmm.serving.servable import Call, Servable
from tfmm.serving.status import Code, ServingError, invalid

_MAX_RECORDS = 1000
_LOG = logging.getLogger(__name__)


def warm_up(servable: Servable, iterations: int) -> None:
    """Replays a version's records, if it has any.

    Args:
      servable: The version.
      iterations: How often each record is replayed.

    Raises:
      ServingError: A record cannot be read or is not answered; the version is not to be served.
    """
    file = servable.path / WARMUP_REQUESTS
    if not file.is_file():
        return
    start = time.perf_counter()
    status, count = "OK", 0
    try:
        for record in _records(file):
            log = _parsed(record, file)
            for _ in range(iterations):
                _answer(servable, log)
            count += 1
            if count > _MAX_RECORDS:
                raise invalid(
                    f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {file}"
                )
    except ServingError as error:
        status = str(error)
        raise
    finally:
        servable.metrics.warmed_up(str(servable.path), status, time.perf_counter() - start)
    _LOG.info("Finished reading warmup data for model at %s: %d records", file, count)


def _records(file: Path) -> Any:
    try:
        for record in tf.data.TFRecordDataset(str(file)):
            yield record.numpy()
    except tf.errors.DataLossError as error:
        raise ServingError(
            Code.DATA_LOSS,
            f"{error.message}. Please verify your warmup data is in TFRecord format.",
        ) from error


def _parsed(record: bytes, file: Path) -> Any:
    log = prediction_log_pb2.PredictionLog()
    try:
        log.ParseFromString(record)
    except DecodeError as error:
        shown = record.decode("utf-8", "replace")
        raise invalid(f"Failed to parse warmup record: {shown} from {file}") from error
    return log


def _answer(servable: Servable, log: Any) -> None:
    call = Call(is_warmup=True)
    match log.WhichOneof("log_type"):
        case "predict_log":
            predict(servable, log.predict_log.request, call)
        case "classify_log":
            classify(servable, log.classify_log.request, call)
        case "regress_log":
            regress(servable, log.regress_log.request, call)
        case "multi_inference_log":
            multi_inference(servable, log.multi_inference_log.request, call)
        case other:
            raise ServingError(
                Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {other or 'none'}"
            )
