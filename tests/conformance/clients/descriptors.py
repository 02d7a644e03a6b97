"""Writes the services of tensorflow-serving-api, and all that they import, as a FileDescriptorSet.

PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python python descriptors.py FILE

The wheel has no .proto files, and its two services can be imported only so.
"""

import pathlib
import sys

from google.protobuf import descriptor_pb2
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2


def add(descriptor, found):
    """Puts a file behind those that it needs."""
    if descriptor.name not in found:
        for needed in descriptor.dependencies:
            add(needed, found)
        found[descriptor.name] = descriptor_pb2.FileDescriptorProto()
        descriptor.CopyToProto(found[descriptor.name])


def main(path):
    found = {}
    for service in (prediction_service_pb2, model_service_pb2):
        add(service.DESCRIPTOR, found)
    files = descriptor_pb2.FileDescriptorSet(file=found.values())
    pathlib.Path(path).write_bytes(files.SerializeToString())


if __name__ == "__main__":
    main(*sys.argv[1:])
