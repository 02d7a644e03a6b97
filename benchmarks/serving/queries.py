"""Queries of the three kinds, serialised as `tfmm.Client` sends them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from tfmm.client.messages import MESSAGES
from tfmm.serving.tensors import to_proto

KINDS = ("text", "photo", "mixed")
_SIGNATURE = "serving_default"
_PHOTO_PX = 224
_PATCHES = 14
_COLOURS = ("red", "green", "blue", "black")
_THINGS = ("mug", "lamp", "chair", "shoes")


def requests(kind: str, model: str) -> list[bytes]:
    """Sixteen queries of a kind: words, a photo, or words with a photo."""
    texts = [f"{colour} {thing}".encode() for colour in _COLOURS for thing in _THINGS]
    photos = [photo(seed) for seed in range(len(texts))]
    match kind:
        case "text":
            return [_request(model, text=text) for text in texts]
        case "photo":
            return [_request(model, image=image) for image in photos]
        case "mixed":
            pairs = zip(texts, photos, strict=True)
            return [_request(model, text=text, image=image) for text, image in pairs]
        case _:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, received {kind}")


def photo(seed: int) -> bytes:
    """A JPEG of 224 px a side, of soft patches in random colours."""
    patches = np.random.default_rng(seed).integers(0, 256, (_PATCHES, _PATCHES, 3), np.uint8)
    picture = Image.fromarray(patches).resize((_PHOTO_PX, _PHOTO_PX), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def _request(model: str, **inputs: bytes) -> bytes:
    request: Any = MESSAGES["PredictRequest"]()
    request.model_spec.name = model
    request.model_spec.signature_name = _SIGNATURE
    for name, value in inputs.items():
        to_proto(np.array([value], object), request.inputs.add(key=name).value)
    content: bytes = request.SerializeToString()
    return content
