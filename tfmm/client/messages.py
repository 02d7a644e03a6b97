"""The messages of PredictionService that a client needs, as they travel.

The generated modules of tensorflow-serving-api import TensorFlow for the one message TensorProto.
Bytes know fields by number and type alone, so that the same numbers, declared here, are read by any
server: an enum travels as an int32, a map as a list of entries.
"""

from __future__ import annotations

from tfmm.serving.declared import declare

_SPEC = (1, "ModelSpec", "model_spec")
MESSAGES = declare(
    "tfmm.client",
    {
        "ModelSpec": [
            (1, "string", "name"),
            (2, "Int64Value", "version"),
            (3, "string", "signature_name"),
        ],
        "Dim": [(1, "int64", "size"), (2, "string", "name")],
        "TensorShapeProto": [(2, "repeated Dim", "dim"), (3, "bool", "unknown_rank")],
        "TensorProto": [
            (1, "int32", "dtype"),
            (2, "TensorShapeProto", "tensor_shape"),
            (4, "bytes", "tensor_content"),
            (5, "repeated float", "float_val"),
            (6, "repeated double", "double_val"),
            (7, "repeated int32", "int_val"),
            (8, "repeated bytes", "string_val"),
            (9, "repeated float", "scomplex_val"),
            (10, "repeated int64", "int64_val"),
            (11, "repeated bool", "bool_val"),
            (12, "repeated double", "dcomplex_val"),
            (13, "repeated int32", "half_val"),
            (16, "repeated uint32", "uint32_val"),
            (17, "repeated uint64", "uint64_val"),
        ],
        "TensorEntry": [(1, "string", "key"), (2, "TensorProto", "value")],
        "PredictRequest": [
            _SPEC,
            (2, "repeated TensorEntry", "inputs"),
            (3, "repeated string", "output_filter"),
        ],
        "PredictResponse": [(1, "repeated TensorEntry", "outputs"), (2, "ModelSpec", "model_spec")],
        "GetModelMetadataRequest": [_SPEC, (2, "repeated string", "metadata_field")],
        "Any": [(1, "string", "type_url"), (2, "bytes", "value")],
        "AnyEntry": [(1, "string", "key"), (2, "Any", "value")],
        "GetModelMetadataResponse": [_SPEC, (2, "repeated AnyEntry", "metadata")],
        "TensorInfo": [
            (1, "string", "name"),
            (2, "int32", "dtype"),
            (3, "TensorShapeProto", "tensor_shape"),
        ],
        "InfoEntry": [(1, "string", "key"), (2, "TensorInfo", "value")],
        "SignatureDef": [
            (1, "repeated InfoEntry", "inputs"),
            (2, "repeated InfoEntry", "outputs"),
            (3, "string", "method_name"),
            (4, "repeated TensorEntry", "defaults"),
        ],
        "SignatureEntry": [(1, "string", "key"), (2, "SignatureDef", "value")],
        "SignatureDefMap": [(1, "repeated SignatureEntry", "signature_def")],
    },
)
