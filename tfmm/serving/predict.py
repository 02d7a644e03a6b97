"""Predict: a request's tensors into a signature's session run, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorflow_serving.apis import predict_pb2

from tfmm.serving.servable import DEFAULT_SIGNATURE, Call, Prepared, Servable
from tfmm.serving.session import Run
from tfmm.serving.status import Code, ServingError, invalid
from tfmm.serving.tensors import Array, to_array, to_proto

API = "Predict"
_METHODS = [f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress")]
# Inputs of tfmm's signatures that set the width of a reply.
_WIDTH_INPUTS = ("k",)


@dataclass(frozen=True)
class Asked:
    """A request that fits a signature.

    Attributes:
      signature: Its name, as the reply says it.
      run: What it wants of the session.
      aliases: Of the outputs, in the order of the run's fetches.
      given: What the request gives, by input.
      key: Under what the reply is kept; None if it is not.
    """

    signature: str
    run: Run
    aliases: Sequence[str]
    given: Mapping[str, Array]
    key: bytes | None = None


def predict(
    servable: Servable, request: predict_pb2.PredictRequest, call: Call
) -> predict_pb2.PredictResponse:
    """Answers a request with a loaded version.

    Raises:
      ServingError: The request does not fit the signature, or the run failed.
    """
    key = servable.key_of(request, call)
    if (reply := servable.reply(key)) is not None:
        return reply
    asked = ask(servable, request, call, key)
    outputs = servable.run(asked.run, call, api=API)
    return answer(servable, request, asked, outputs, is_warmup=call.is_warmup)


def ask(
    servable: Servable, request: predict_pb2.PredictRequest, call: Call, key: bytes | None = None
) -> Asked:
    """Reads a request; its reply is kept under the key.

    Raises:
      ServingError: It does not fit the signature.
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if name not in servable.prepared:
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    signature = servable.prepared[name]
    if call.check_method and signature.method not in _METHODS:
        raise ServingError(
            Code.INTERNAL,
            "Expected prediction signature method_name to be one of "
            f"{{{', '.join(_METHODS)}}}. Was: {signature.method}",
        )
    if signature.narrower:
        signature = signature.narrower.get(frozenset(request.inputs), signature)
    values = _values(signature, request.inputs)
    aliases = _aliases(signature, request.output_filter)
    run = Run(
        feeds={signature.inputs[alias]: array for alias, array in values.items()},
        fetches=[signature.outputs[alias] for alias in aliases],
        timeout_ms=call.timeout_ms,
        widths=tuple(values[alias].tobytes() for alias in _WIDTH_INPUTS if alias in values),
    )
    return Asked(name, run, aliases, {alias: values[alias] for alias in request.inputs}, key)


def answer(
    servable: Servable,
    request: predict_pb2.PredictRequest,
    asked: Asked,
    outputs: Sequence[Array],
    *,
    is_warmup: bool = False,
) -> predict_pb2.PredictResponse:
    """Writes what a request's run gave into a reply, counts it and keeps it.

    Raises:
      ServingError: An output is of a type that cannot be sent.
    """
    queries = None
    if not is_warmup:
        queries = servable.count(asked.given, dict(zip(asked.aliases, outputs, strict=True)))
    response = predict_pb2.PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = asked.signature
    for alias, array in zip(asked.aliases, outputs, strict=True):
        try:
            to_proto(array, response.outputs[alias])
        except ValueError as error:
            raise ServingError(Code.UNIMPLEMENTED, f"output {alias}: {error}") from error
    servable.keep(asked.key, response, queries)
    return response


def _values(signature: Prepared, given: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays by alias: what the request gives, and defaults for the rest."""
    wanted = signature.inputs
    if len(given) > len(wanted) or (len(given) < len(wanted) and not signature.defaults):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} "
            f"len({_set(given)}) != len({_set(wanted)}). "
            f"Sent extra: {_set(set(given) - set(wanted))}. "
            f"Missing but required: {_set(set(wanted) - set(given))}."
        )
    values, used = {}, []
    for alias, feed in wanted.items():
        if alias in given:
            used.append(alias)
            try:
                values[alias] = to_array(given[alias])
            except (ValueError, OverflowError, MemoryError) as error:
                raise invalid(f"tensor parsing error: {alias}") from error
        elif alias in signature.defaults:
            values[alias] = signature.defaults[alias]
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {feed}) not found in request and no "
                "default value provided. Inputs expected to be in the request "
                f"{_set(given)}, or default input alias set: {_list(signature.defaults)}"
            )
    if len(used) != len(given):
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {_list(used)}, "
            f"request input: {_list(given)}"
        )
    return values


def _aliases(signature: Prepared, wanted: Iterable[str]) -> list[str]:
    """Aliases of the outputs to return: those of the filter, in its order, or all."""
    aliases: list[str] = []
    for alias in wanted:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_set(signature.outputs)}."
            )
        if alias in aliases:
            raise invalid(f"duplicate output tensor alias: {alias}")
        aliases.append(alias)
    return aliases or list(signature.outputs)


def _list(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _set(names: Iterable[str]) -> str:
    return f"{{{_list(names)}}}"
