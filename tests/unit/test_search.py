import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import tfmm  # noqa: F401 - selects legacy Keras before TensorFlow is imported
from tfmm.config import CatalogueConfig, Config, TowerConfig, config_to_dict
from tfmm.errors import TfmmError
from tfmm.question import Asked
from tfmm.workflows import search as workflow
from tfmm.workflows.search import search

SAVED_MODEL = Path("saved_models/fake")


class FakeModel:
    """Remembers what it was asked; always finds two products of three."""

    def __init__(self, config: Config) -> None:
        self.path = SAVED_MODEL
        self.manifest = {"config": config_to_dict(config)}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.signatures = {
            name: lambda _name=name, **inputs: self._answer(_name, inputs)
            for name in ("serving_default", "similar")
        }

    def _answer(self, name: str, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        if len(inputs.get("product_id", [])) > 1:
            known = [one in ("p1", "p2", "p7", "p8") for one in inputs["product_id"]]
            return {
                "product_id": np.array([[b"p3" if one else b"p2"] for one in known], object),
                "score": np.array([[0.5 if one else 1.0] for one in known], np.float32),
            }
        self.asked.append((name, inputs))
        return {
            "price": np.array([[19.5, -1.0, -1.0]], np.float32),
            "title": np.array([[b"Rote Tasse", "红色杯子".encode(), b""]], object),
            "score": np.array([[0.75, 0.5, -3e38]], np.float32),
            "product_id": np.array([[b"p1", b"p2", b""]], object),
        }


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    config = Config(catalogue=CatalogueConfig(max_k=50))
    fake = FakeModel(config)
    monkeypatch.setattr(workflow, "load_model", lambda path: fake)
    return fake


def test_hits_are_the_products_found_with_their_fields_in_the_recipes_order(model: FakeModel):
    first, second = search(SAVED_MODEL, Asked(text="red mug", k=3)).hits
    assert (first.product_id, first.score) == ("p1", 0.75)
    assert first.fields == {"title": "Rote Tasse", "price": 19.5}
    assert list(first.fields) == ["title", "price"]
    assert second.fields["title"] == "红色杯子"
    assert model.asked == [("serving_default", {"text": ["red mug"], "k": [3]})]


def test_the_table_has_a_line_a_hit_and_no_price_where_there_is_none(model: FakeModel):
    lines = [line.split() for line in str(search(SAVED_MODEL, Asked(text="red"))).splitlines()]
    assert ["rank", "product_id", "score", "title", "price"] in lines
    assert ["1", "p1", "0.7500", "Rote", "Tasse", "19.5"] in lines
    assert ["2", "p2", "0.5000", "红色杯子"] in lines


def test_one_product_alone_asks_for_what_is_similar_to_it(model: FakeModel):
    search(SAVED_MODEL, Asked(like=["p7"], k=5))
    assert model.asked == [("similar", {"product_id": ["p7"], "k": [5]})]


def test_several_products_and_products_beside_words_are_history(model: FakeModel):
    search(SAVED_MODEL, Asked(like=["p7", "p8"]))
    search(SAVED_MODEL, Asked(text="red", like=["p7"]))
    (name, first), (_, second) = model.asked
    assert name == "serving_default"
    assert first == {"history": [["p7", "p8"]], "k": [10]}
    assert second == {"text": ["red"], "history": [["p7"]], "k": [10]}


def test_a_photo_of_any_format_reaches_the_model_as_one_that_it_reads(model: FakeModel, tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (8, 8), "red").save(path, "WEBP")
    search(SAVED_MODEL, Asked(image=path))
    (sent,) = model.asked[0][1]["image"]
    assert Image.open(io.BytesIO(sent)).format in ("JPEG", "PNG")


def test_a_flac_reaches_the_model_as_16_khz_wav(model: FakeModel, tmp_path):
    path = tmp_path / "voice.flac"
    soundfile.write(path, np.sin(np.arange(4800) / 10) / 2, 48_000)
    search(SAVED_MODEL, Asked(audio=path))
    (sent,) = model.asked[0][1]["audio"]
    with wave.open(io.BytesIO(sent)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getnframes()) == (16_000, 1, 1600)


@pytest.mark.parametrize(
    ("option", "content", "sentence"),
    [
        ("image", b"", "--image .*expected"),
        ("image", b"not a photo", "--image .*expected"),
        ("audio", b"not a sound", "--audio .*expected"),
        ("audio", None, "--audio: expected a readable file"),
    ],
)
def test_a_file_that_is_none_is_refused_with_a_sentence(
    model: FakeModel, tmp_path: Path, option: str, content: bytes | None, sentence: str
):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TfmmError, match=sentence):
        search(SAVED_MODEL, Asked(**{option: path}))


def test_a_query_that_asks_nothing_is_refused(model: FakeModel):
    with pytest.raises(TfmmError, match="expected --text, --image, --audio or --like"):
        search(SAVED_MODEL, Asked(text="  "))


@pytest.mark.parametrize("k", [0, 51])
def test_k_beyond_the_models_bounds_is_refused(model: FakeModel, k: int):
    with pytest.raises(TfmmError, match=rf"-k: expected 1..50, received {k}"):
        search(SAVED_MODEL, Asked(text="red", k=k))


def test_a_modality_that_the_model_does_not_read_is_refused(monkeypatch, tmp_path):
    fake = FakeModel(Config(tower=TowerConfig(query=("image",))))
    monkeypatch.setattr(workflow, "load_model", lambda path: fake)
    with pytest.raises(TfmmError, match="expected a query of image, received text"):
        search(SAVED_MODEL, Asked(text="red"))
    with pytest.raises(TfmmError, match="expected a query of image, received history"):
        search(SAVED_MODEL, Asked(like=["p1", "p2"]))


@pytest.mark.parametrize("like", [["p9"], ["p1", "p9"]])
def test_an_unknown_product_is_refused(model: FakeModel, like: list[str]):
    with pytest.raises(TfmmError, match=r"--like: expected ids of products in .*, received p9"):
        search(SAVED_MODEL, Asked(like=like))
    assert model.asked == []


def test_a_saved_model_of_somebody_else_is_refused(model: FakeModel):
    model.manifest = {}
    with pytest.raises(TfmmError, match="expected a model that tfmm exported"):
        search(SAVED_MODEL, Asked(text="red"))


def test_filters_are_sent_as_the_models_inputs_want_them(model):
    filters = ["category=shoes", "category=帽子", "max_price=30", "in_stock_only=true"]
    search(SAVED_MODEL, Asked(text="red", filters=[*filters, "max_per_brand=1", "brand=a=b"]))
    search(SAVED_MODEL, Asked(like=["p7"], filters=["brand=x"]))
    (_, first), (name, second) = model.asked[0], model.asked[-1]
    assert first["category"] == [["shoes", "帽子"]]
    assert first["brand"] == [["a=b"]]
    assert (first["max_price"], first["in_stock_only"]) == ([30.0], [True])
    assert first["max_per_brand"] == [1]
    assert (name, second["brand"]) == ("similar", [["x"]])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("shoes", "NAME=VALUE"),
        ("a b=c", "NAME=VALUE"),
        ("max_price=cheap", "a number"),
        ("max_per_brand=1.5", "a whole number"),
        ("in_stock_only=yes", "true or false"),
    ],
)
def test_a_filter_of_another_form_is_refused_with_a_sentence(model, given, expected):
    with pytest.raises(TfmmError, match=f"^--filter: expected {expected}, received {given}$"):
        search(SAVED_MODEL, Asked(text="red", filters=[given]))
