"""Asks a server with min-tfs-client, and with the messages and stubs of 2020 that it brings.

python min_tfs_example.py HOST PORT
"""

import json
import sys

import grpc
import numpy as np
from min_tfs_client.requests import TensorServingClient
from min_tfs_client.tensors import tensor_proto_to_ndarray
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
    regression_pb2,
)


def search(client, words):
    answer = client.predict_request(
        model_name="tiny",
        input_dict={"text": np.array([words]), "k": np.array([5], dtype=np.int32)},
    )
    arrays = {name: tensor_proto_to_ndarray(proto) for name, proto in answer.outputs.items()}
    return list(zip(arrays["product_id"][0], arrays["score"][0].tolist(), strict=True))


def refusal(client):
    try:
        client.predict_request("half", {"x": np.array([1.0], dtype=np.float32)}, model_version=9)
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return None


def examined(request, signature):
    """A Classify or Regress request of two examples."""
    request.model_spec.name = "half"
    request.model_spec.version.value = 123
    request.model_spec.signature_name = signature
    for x in (2.0, 4.0):
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(x)
    return request


def by_stubs(channel):
    prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    classes = prediction.Classify(
        examined(classification_pb2.ClassificationRequest(), "classify_labels"), 60
    )
    values = prediction.Regress(examined(regression_pb2.RegressionRequest(), "regress_x_to_y"), 60)
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "tiny"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    prediction.GetModelMetadata(asked, 60).metadata["signature_def"].Unpack(signatures)
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "half"
    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(asked, 60)
    state = get_model_status_pb2.ModelVersionStatus.State
    return {
        "classes": [
            [(each.label, each.score) for each in one.classes]
            for one in classes.result.classifications
        ],
        "values": [one.value for one in values.result.regressions],
        "inputs": sorted(signatures.signature_def["search_text"].inputs),
        "states": {one.version: state.Name(one.state) for one in status.model_version_status},
    }


def main(host, port):
    client = TensorServingClient(host=host, port=int(port))
    halves = client.predict_request(
        model_name="half",
        input_dict={"x": np.array([[1.0], [2.0], [5.0]], dtype=np.float32)},
        model_version=123,
    )
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        result = by_stubs(channel)
    result["halves"] = tensor_proto_to_ndarray(halves.outputs["y"]).tolist()
    result["version"] = halves.model_spec.version.value
    result["hits"] = search(client, "red shirt")
    result["refusal"] = refusal(client)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
