"""grpc.reflection.v1alpha.ServerReflection: what grpcurl and its like ask before they call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool  # type: ignore[import-untyped]
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tfmm.serving.declared import declare

_PACKAGE = "grpc.reflection.v1alpha"
_SERVICE = f"{_PACKAGE}.ServerReflection"
_MESSAGES = declare(
    _PACKAGE,
    {
        "ServerReflectionRequest": [
            (1, "string", "host"),
            (3, "oneof string", "file_by_filename"),
            (4, "oneof string", "file_containing_symbol"),
            (5, "oneof ExtensionRequest", "file_containing_extension"),
            (6, "oneof string", "all_extension_numbers_of_type"),
            (7, "oneof string", "list_services"),
        ],
        "ExtensionRequest": [(1, "string", "containing_type"), (2, "int32", "extension_number")],
        "ServerReflectionResponse": [
            (1, "string", "valid_host"),
            (2, "ServerReflectionRequest", "original_request"),
            (4, "oneof FileDescriptorResponse", "file_descriptor_response"),
            (6, "oneof ListServiceResponse", "list_services_response"),
            (7, "oneof ErrorResponse", "error_response"),
        ],
        "FileDescriptorResponse": [(1, "repeated bytes", "file_descriptor_proto")],
        "ListServiceResponse": [(1, "repeated ServiceResponse", "service")],
        "ServiceResponse": [(1, "string", "name")],
        "ErrorResponse": [(1, "int32", "error_code"), (2, "string", "error_message")],
    },
)
_NOT_FOUND, _UNIMPLEMENTED = 5, 12
# The modules that the wheel generated for the two services cannot be imported with protobuf's upb:
# the same services once more, over messages that can.
_PREDICTION = {
    "Classify": (
        classification_pb2.ClassificationRequest,
        classification_pb2.ClassificationResponse,
    ),
    "Regress": (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
    "Predict": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    "MultiInference": (inference_pb2.MultiInferenceRequest, inference_pb2.MultiInferenceResponse),
    "GetModelMetadata": (
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
}
_MODEL = {
    "GetModelStatus": (
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.GetModelStatusResponse,
    ),
    "HandleReloadConfigRequest": (
        model_management_pb2.ReloadConfigRequest,
        model_management_pb2.ReloadConfigResponse,
    ),
}
_FILES = {
    "tensorflow.serving.PredictionService": ("prediction_service", _PREDICTION),
    "tensorflow.serving.ModelService": ("model_service", _MODEL),
}


class _Reflection:
    def __init__(self) -> None:
        self._services = {name: _service_file(name) for name in _FILES}
        self._services[_SERVICE] = _own_file()

    async def answer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        del context
        async for request in requests:
            response = _MESSAGES["ServerReflectionResponse"](
                valid_host=request.host, original_request=request
            )
            self._fill(request, response)
            yield response

    def _fill(self, request: Any, response: Any) -> None:
        try:
            match request.WhichOneof("choice"):
                case "file_containing_symbol":
                    file = self._file_of(request.file_containing_symbol)
                case "file_by_filename":
                    file = self._file_named(request.file_by_filename)
                case "list_services":
                    for name in self._services:
                        response.list_services_response.service.add(name=name)
                    return
                case _:
                    response.error_response.error_code = _UNIMPLEMENTED
                    response.error_response.error_message = "extensions are not reflected"
                    return
        except KeyError as error:
            response.error_response.error_code = _NOT_FOUND
            response.error_response.error_message = str(error.args[0])
            return
        response.file_descriptor_response.file_descriptor_proto.extend(self._with_imports(file))

    def _file_of(self, symbol: str) -> Any:
        for name, file in self._services.items():
            if symbol == name or symbol.rpartition(".")[0] == name:
                return file
        return _proto(descriptor_pool.Default().FindFileContainingSymbol(symbol))

    def _file_named(self, name: str) -> Any:
        for file in self._services.values():
            if file.name == name:
                return file
        return _proto(descriptor_pool.Default().FindFileByName(name))

    def _with_imports(self, file: Any) -> list[bytes]:
        """A file and all that it imports, each once."""
        found = {file.name: file}
        waiting = list(file.dependency)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self._file_named(name)
                waiting += found[name].dependency
        return [each.SerializeToString() for each in found.values()]


def add_to(server: Any) -> None:
    """Adds the service."""
    handler = grpc.stream_stream_rpc_method_handler(
        _Reflection().answer,
        request_deserializer=_MESSAGES["ServerReflectionRequest"].FromString,
        response_serializer=_MESSAGES["ServerReflectionResponse"].SerializeToString,
    )
    methods = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))


def _service_file(name: str) -> Any:
    file_name, methods = _FILES[name]
    package, _, short = name.rpartition(".")
    messages = {message.DESCRIPTOR for pair in methods.values() for message in pair}
    file = descriptor_pb2.FileDescriptorProto(
        name=f"tensorflow_serving/apis/{file_name}.proto",
        package=package,
        syntax="proto3",
        dependency=sorted({message.file.name for message in messages}),
    )
    service = file.service.add(name=short)
    for method, (request, response) in methods.items():
        service.method.add(
            name=method,
            input_type=f".{request.DESCRIPTOR.full_name}",
            output_type=f".{response.DESCRIPTOR.full_name}",
        )
    return file


def _own_file() -> Any:
    """The file of reflection itself: tools that describe all that is listed ask for it too."""
    request, response = (
        _MESSAGES[f"ServerReflection{kind}"].DESCRIPTOR for kind in ("Request", "Response")
    )
    file = _proto(request.file)
    file.name = f"{_PACKAGE.replace('.', '/')}/reflection.proto"
    file.service.add(name="ServerReflection").method.add(
        name="ServerReflectionInfo",
        input_type=f".{request.full_name}",
        output_type=f".{response.full_name}",
        client_streaming=True,
        server_streaming=True,
    )
    return file


def _proto(descriptor: Any) -> Any:
    file = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(file)
    return file
