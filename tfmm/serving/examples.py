"""Classify, Regress and MultiInference: serialised Examples in, classes or values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from tfmm.serving.servable import DEFAULT_SIGNATURE, Call, Servable
from tfmm.serving.session import Run
from tfmm.serving.status import Code, ServingError, invalid
from tfmm.serving.tensors import Array, data_type

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
_INPUTS, _CLASSES, _SCORES, _OUTPUTS = "inputs", "classes", "scores", "outputs"
Signature: TypeAlias = meta_graph_pb2.SignatureDef


def classify(
    servable: Servable, request: classification_pb2.ClassificationRequest, call: Call
) -> classification_pb2.ClassificationResponse:
    """Answers a request with the classes and scores of each Example.

    Raises:
      ServingError: The request or the signature does not fit, or the run failed.
    """
    api = _Api("Classify", _classification, _write_classes)
    response = classification_pb2.ClassificationResponse()
    _answer(api, servable, request, call, response)
    return response


def regress(
    servable: Servable, request: regression_pb2.RegressionRequest, call: Call
) -> regression_pb2.RegressionResponse:
    """Answers a request with a value for each Example.

    Raises:
      ServingError: The request or the signature does not fit, or the run failed.
    """
    api = _Api("Regress", _regression, _write_values)
    response = regression_pb2.RegressionResponse()
    _answer(api, servable, request, call, response)
    return response


def multi_inference(
    servable: Servable, request: inference_pb2.MultiInferenceRequest, call: Call
) -> inference_pb2.MultiInferenceResponse:
    """Answers several classifications and regressions of the same Examples with one run.

    Raises:
      ServingError: A task does not fit the others or its signature, or the run failed.
    """
    feeds, fetches = _tasks(servable, request.tasks, call)
    arrays, count = _run(servable, request.input, feeds, fetches, call, "MultiInference")
    servable.metrics.received_examples(servable.name, count)
    response = inference_pb2.MultiInferenceResponse()
    for task in request.tasks:
        name, signature = _signature(servable, task.model_spec)
        result = response.results.add()
        if task.method_name == CLASSIFY:
            _write_classes(signature, count, arrays, result.classification_result)
        else:
            _write_values(signature, count, arrays, result.regression_result)
        _set_spec(result.model_spec, task.model_spec.name, servable.version, name)
    return response


def _signature(servable: Servable, spec: Any) -> tuple[str, Signature]:
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in servable.signatures:
        raise invalid(f"No signature was found with the name: {name}")
    return name, servable.signatures[name]


def _tasks(servable: Servable, tasks: Sequence[Any], call: Call) -> tuple[list[str], list[str]]:
    """The tensors that the tasks feed, and those that they fetch.

    All are fed with the same Examples. TensorFlow 2 gives each signature an input of its own.
    """
    seen: set[str] = set()
    fed: set[str] = set()
    fetched: set[str] = set()
    for task in tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in seen:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        if name not in servable.signatures:
            raise invalid(f"Requested signature not found in model graph: {name}")
        feed, fetches = _reader(task.method_name)(servable.signatures[name], call)
        fed.add(feed)
        fetched.update(fetches)
    return sorted(fed), sorted(fetched)


def _reader(method: str) -> Callable[[Signature, Call], tuple[str, list[str]]]:
    match method:
        case "tensorflow/serving/classify":
            return _classification
        case "tensorflow/serving/regress":
            return _regression
        case _:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")


def _classification(signature: Signature, call: Call) -> tuple[str, list[str]]:
    """The tensor that a classification feeds, and those that it fetches."""
    _check_method(signature, call, "classification", CLASSIFY)
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if _INPUTS not in signature.inputs:
        raise _unfit(f"No classification inputs found in SignatureDef: {signature}")
    fetches = [signature.outputs[n].name for n in (_CLASSES, _SCORES) if n in signature.outputs]
    if not fetches:
        raise _unfit(
            "Expected classification signature outputs to contain at least one of "
            f'"{_CLASSES}" or "{_SCORES}". Signature was: {signature}'
        )
    return signature.inputs[_INPUTS].name, fetches


def _regression(signature: Signature, call: Call) -> tuple[str, list[str]]:
    """The tensor that a regression feeds, and the one that it fetches."""
    _check_method(signature, call, "regression", REGRESS)
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if _INPUTS not in signature.inputs:
        raise _unfit(f"No regression inputs found in SignatureDef: {signature}")
    if _OUTPUTS not in signature.outputs:
        raise _unfit(f"No regression outputs found in SignatureDef: {signature}")
    return signature.inputs[_INPUTS].name, [signature.outputs[_OUTPUTS].name]


def _check_method(signature: Signature, call: Call, kind: str, method: str) -> None:
    if call.check_method and signature.method_name != method:
        raise invalid(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}"
        )


def _unfit(message: str) -> ServingError:
    return ServingError(Code.FAILED_PRECONDITION, message)


@dataclass(frozen=True)
class _Api:
    """What sets classifications and regressions apart.

    Attributes:
      name: As the metrics have it.
      plan: The tensor to feed and those to fetch, of a signature that fits.
      write: Puts the fetched arrays into a result.
    """

    name: str
    plan: Callable[[Signature, Call], tuple[str, Sequence[str]]]
    write: Callable[[Signature, int, Mapping[str, Array], Any], None]


def _answer(api: _Api, servable: Servable, request: Any, call: Call, response: Any) -> None:
    """Runs a request's Examples and fills in its response."""
    name, signature = _signature(servable, request.model_spec)
    feed, fetches = api.plan(signature, call)
    arrays, count = _run(servable, request.input, [feed], fetches, call, api.name)
    _set_spec(response.model_spec, request.model_spec.name, servable.version, name)
    servable.metrics.received_examples(request.model_spec.name, count)
    api.write(signature, count, arrays, response.result)


def _run(
    servable: Servable,
    given: Any,
    feeds: Sequence[str],
    fetches: Sequence[str],
    call: Call,
    api: str,
) -> tuple[dict[str, Array], int]:
    """Arrays by the name of their tensor, and the number of Examples."""
    examples = _serialised(given)
    array = np.array(examples, object)
    run = Run(dict.fromkeys(feeds, array), list(fetches), call.timeout_ms)
    arrays = servable.run(run, call, api=api)
    return dict(zip(fetches, arrays, strict=True)), len(examples)


def _serialised(given: Any) -> list[bytes]:
    """The Examples of an Input as bytes; a context is put in front of each.

    Two serialised messages of a kind in a row are their merger.
    """
    kind = given.WhichOneof("kind")
    if kind is None:
        raise invalid("Input is empty.")
    holder = getattr(given, kind)
    context = holder.context.SerializeToString() if kind == "example_list_with_context" else b""
    examples = [context + example.SerializeToString() for example in holder.examples]
    if not examples:
        raise invalid("Input is empty.")
    return examples


def _write_classes(
    signature: Signature, count: int, arrays: Mapping[str, Array], result: Any
) -> None:
    found = {
        name: arrays[signature.outputs[name].name]
        for name in (_CLASSES, _SCORES)
        if name in signature.outputs
    }
    for name, dtype in ((_CLASSES, types_pb2.DT_STRING), (_SCORES, types_pb2.DT_FLOAT)):
        if name in found:
            _check_classes(name, found[name], dtype, count)
    classes, scores = found.get(_CLASSES), found.get(_SCORES)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid(
            "Tensors class and score should match in dim_size(1). Got "
            f"{classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = next(iter(found.values())).shape[1]
    for row in range(count):
        of_row = result.classifications.add()
        for column in range(width):
            one = of_row.classes.add()
            if classes is not None:
                one.label = classes[row, column].decode("utf-8", "replace")
            if scores is not None:
                one.score = scores[row, column]


def _check_classes(name: str, array: Array, dtype: int, count: int) -> None:
    if array.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
    wanted, found = types_pb2.DataType.Name(dtype), data_type(array)
    if wanted != found:
        raise invalid(f"Expected {name} Tensor of {wanted}. Got: {found}")
    if len(array) != count:
        raise invalid(f"Expected {name} output batch size of {count}. Got: {len(array)}")


def _write_values(
    signature: Signature, count: int, arrays: Mapping[str, Array], result: Any
) -> None:
    array = arrays[signature.outputs[_OUTPUTS].name]
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shape(array)}"
        )
    if len(array) != count:
        raise invalid(f"Input batch size did not match output batch size: {count} vs. {len(array)}")
    if data_type(array) != "DT_FLOAT":
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {data_type(array)}")
    for value in array.reshape(-1).tolist():
        result.regressions.add().value = value


def _shape(array: Array) -> str:
    return f"[{','.join(str(size) for size in array.shape)}]"


def _set_spec(spec: Any, name: str, version: int, signature: str) -> None:
    spec.name = name
    spec.version.value = version
    spec.signature_name = signature
