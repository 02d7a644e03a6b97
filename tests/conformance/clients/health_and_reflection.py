"""Asks whether a server is healthy, and what it can do, with gRPC's own client libraries.

python health_and_reflection.py HOST:PORT

All messages but those of the two libraries are built from what the server says of itself.
"""

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "tensorflow.serving.PredictionService"
DT_STRING = 7


def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="PredictionService")
    watched = stub.Watch(request, timeout=60)
    states = [stub.Check(request, timeout=60).status, next(watched).status]
    watched.cancel()
    return [health_pb2.HealthCheckResponse.ServingStatus.Name(state) for state in states]


def search(channel, pool, words):
    method = pool.FindServiceByName(SERVICE).FindMethodByName("Predict")
    request = GetMessageClass(method.input_type)()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "search_text"
    request.inputs["text"].dtype = DT_STRING
    request.inputs["text"].tensor_shape.dim.add(size=1)
    request.inputs["text"].string_val.append(words.encode())
    call = channel.unary_unary(
        f"/{SERVICE}/Predict",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    outputs = call(request, timeout=60).outputs
    ids = [product.decode() for product in outputs["product_id"].string_val]
    return list(zip(ids, outputs["score"].float_val, strict=True))


def main(address):
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        # As `grpcurl describe` does it: all that is listed is asked for.
        services = {
            name: sorted(method.name for method in pool.FindServiceByName(name).methods)
            for name in database.get_services()
        }
        result = {
            "health": health(channel),
            "services": services,
            "hits": search(channel, pool, "red shirt"),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
