"""What every retriever does, whatever its index, in memory and loaded back from disk."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import functools

import fake_parts
import numpy as np
import pytest
import tensorflow as tf
from fake_parts import retriever

from tfmm.artifacts import Signature, load_model
from tfmm.errors import TfmmError
from tfmm.refreshing import opened
from tfmm.signatures import by_operations

LOWEST = np.finfo(np.float32).min
RANKED = ("serving_default", "search", "search_text", "search_image", "search_audio", "recommend")


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory):
    """Signatures by name, over 40 products; by index, in memory and loaded back; and its folder."""

    @functools.cache
    def made(index: str):
        retrieving, folder = retriever(index=index), tmp_path_factory.mktemp(index)
        retrieving.save(folder)
        functions, saved = retrieving.signatures(), load_model(folder).signatures
        memory = {n: Signature(n, by_operations(functions[n]), s.inputs) for n, s in saved.items()}
        return {"memory": memory, "saved": saved, "folder": folder}

    return made


@pytest.fixture(
    scope="module",
    params=[
        f"{index}-{place}" for index in ("exact", "ivf", "scann") for place in ("memory", "saved")
    ],
)
def model(request: pytest.FixtureRequest, models):
    index, place = request.param.split("-")
    return models(index)[place]


@pytest.fixture(scope="module", params=["exact", "ivf", "scann"])
def saved(request: pytest.FixtureRequest, models):
    """The sentences of a refusal are the graph's."""
    return models(request.param)["saved"]


def ids(answer, row=0):
    return [one.decode() for one in answer["product_id"][row] if one]


def test_all_signatures_are_there(model):
    assert set(model) == {*RANKED, "similar", "embed_query", "embed_product"}


def test_the_wide_signature_declares_the_whole_list_of_inputs(model):
    assert set(model["serving_default"].inputs) == {
        "text", "image", "audio", "history", "history_event", "history_age_seconds", "exclude",
        "hour", "place", "category", "brand", "min_price", "max_price", "in_stock_only",
        "max_per_category", "max_per_brand", "k",
    }  # fmt: skip
    assert set(model["serving_default"].inputs) == set(model["search"].inputs)
    assert set(model["search_text"].inputs) == {"text"}
    assert set(model["recommend"].inputs) == {"history"}
    assert {"product_id", "exclude", "k", "category", "min_price"} <= set(model["similar"].inputs)


def test_every_input_has_a_default_of_one_row_and_a_fixed_width(model):
    for signature in model.values():
        for name, spec in signature.inputs.items():
            assert spec.default is not None, name
            assert spec.default.shape == (1, *spec.shape[1:])
    widths = {name: spec.shape for name, spec in model["search"].inputs.items()}
    assert widths["history"] == widths["history_age_seconds"] == (None, 4)
    assert widths["exclude"] == (None, 3)
    assert widths["category"] == (None, 2)


@pytest.mark.parametrize("name", [*RANKED, "similar", "embed_query", "embed_product"])
def test_every_output_has_the_batch_first(model, name):
    signature = model[name]
    first = next(key for key, spec in signature.inputs.items() if spec.dtype == tf.string)
    rows = [["p2"], ["p3"], ["p4"]] if len(signature.inputs[first].shape) == 2 else ["a", "b", "c"]
    for value in signature(**{first: rows}).values():
        assert value.shape[0] == 3
        assert value.ndim == 2


def test_words_find_the_product_that_is_called_so(model):
    answer = model["search_text"](text=["title 7", "title 21"])
    assert ids(answer, 0)[0] == "p7"
    assert ids(answer, 1)[0] == "p21"
    assert answer["title"][0, 0] == b"title 7"
    assert answer["price"][0, 0] == 7.0
    assert answer["in_stock"][0, 0] == 1
    assert answer["score"][0, 0] > 0.98
    assert (np.diff(answer["score"], axis=1) <= 0).all()


def test_one_word_alone_is_a_whole_request_with_the_default_k(model):
    assert len(ids(model["serving_default"](text="title 7"))) == 5


def test_history_alone_recommends_and_does_not_exclude_itself(model):
    answer = model["recommend"](history=[["", "", "", "p9"]])
    assert ids(answer)[0] == "p9"
    np.testing.assert_array_equal(
        answer["product_id"], model["search"](history=["p9"])["product_id"]
    )


def test_unknown_products_in_history_are_ignored(model):
    known = model["recommend"](history=[["p9", "p4"]])
    mixed = model["recommend"](history=[["p9", "gone", "p4"]])
    np.testing.assert_array_equal(known["product_id"], mixed["product_id"])


POPULAR = ["p3", "p0", "p1", "p2", "p4", "p5"]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("serving_default", {}),
        ("serving_default", {"text": ""}),
        ("serving_default", {"history": ["gone", "never was"]}),
        ("search_text", {"text": [""]}),
        ("recommend", {"history": [["", ""]]}),
        ("similar", {"product_id": "gone"}),
    ],
)
def test_asking_for_nothing_known_gives_the_popular_products(model, name, given):
    answer = model[name](**given)
    assert ids(answer) == POPULAR[:5]
    np.testing.assert_allclose(answer["score"][0], [1.0, 0.5, 0.4875, 0.475, 0.45], rtol=1e-6)


def test_popular_products_obey_exclude_and_k(model):
    answer = model["search"](text=["", "title 8", ""], exclude=["p3", "p1", "gone"], k=[3, 2, 20])
    assert ids(answer, 0) == ["p0", "p2", "p4"]
    assert ids(answer, 1)[0] == "p8"
    assert len(ids(answer, 2)) == 20


def test_excluded_products_are_replaced_by_the_next_ones(model):
    free = ids(model["search"](text="title 7", k=8))
    barred = ids(model["search"](text="title 7", exclude=free[:3], k=5))
    assert barred == free[3:]


def test_each_row_gets_its_own_k_and_the_rest_is_padding(model):
    answer = model["search"](text=["title 1", "title 2", ""], k=[2, 6, 4])
    assert answer["product_id"].shape == (3, 6)
    assert [len(ids(answer, row)) for row in range(3)] == [2, 6, 4]
    padding = answer["product_id"] == b""
    assert (answer["score"][padding] == LOWEST).all()
    assert (answer["title"][padding] == b"").all()
    assert (answer["price"][padding] == -1).all()
    assert (answer["in_stock"][padding] == -1).all()


def test_no_answer_holds_a_number_that_json_lacks(model):
    answer = model["search"](text=[f"title {n}" for n in range(40)], k=20)
    assert all(np.isfinite(v).all() for v in answer.values() if v.dtype.kind == "f")
    at = answer["product_id"] == b"p1"
    assert at.any()
    assert (answer["price"][at] == -1).all()


def test_similar_gives_other_products(model):
    answer = model["similar"](product_id=["p7", "p8"], k=20)
    assert "p7" not in ids(answer, 0)
    assert "p7" in ids(model["search"](history="p7", k=20))
    without_itself = [one for one in ids(model["search"](history="p7", k=20)) if one != "p7"]
    assert ids(answer, 0)[:19] == without_itself[:19]
    assert without_itself[0] not in ids(
        model["similar"](product_id="p7", exclude=without_itself[:1])
    )


@pytest.mark.parametrize("k", [0, -1, 21])
@pytest.mark.parametrize("name", ["search", "similar"])
def test_k_out_of_range_is_refused_with_a_sentence(saved, name, k):
    with pytest.raises(TfmmError, match=rf"^k: expected 1..20, received {k}$"):
        saved[name](k=[5, k] if name == "search" else k)


def test_a_length_that_is_neither_1_nor_the_batch_is_refused_with_a_sentence(saved):
    with pytest.raises(TfmmError, match=r"^exclude: expected 1 or 3 rows, received 2$"):
        saved["search"](text=["a", "b", "c"], exclude=[["p1"], ["p2"]])


def test_inputs_of_later_use_are_accepted(model):
    plain = model["search"](text="title 7")
    full = model["search"](
        text="title 7", history_event=["click"], history_age_seconds=[5.0], hour=3, place="Bern"
    )
    np.testing.assert_array_equal(plain["product_id"], full["product_id"])


def test_hits_comply_with_every_kind_of_rule(model):
    every = ids(model["search"](text="title 7", k=20))
    assert ids(model["search"](text="title 7", k=20, max_price=1e9, min_price=0.0)) != every
    one = model["search"](text="title 7", category=["c2", "c3"], in_stock_only=True, k=20)
    # Each seventh product from p2 and p3 on; each fifth from p4 on is not in stock.
    numbers = sorted(int(name[1:]) for name in ids(one))
    assert numbers == [n for n in range(40) if n % 7 in (2, 3) and n % 5 != 4]
    bounded = model["search"](text="title 7", min_price=2.0, max_price=5.0, k=20)
    assert sorted(ids(bounded)) == ["p2", "p3", "p4", "p5"]
    # p1 has no price, and so lies within no bounds.
    assert sorted(ids(model["search"](text="title 7", max_price=2.0, k=20))) == ["p0", "p2"]
    assert ids(model["search"](text="title 7", category="no such")) == []


def test_limits_a_value_take_the_best_of_each(model):
    ranking = ids(model["search"](text="title 7", k=20))
    answer = ids(model["search"](text="title 7", k=20, max_per_brand=1))
    brands = [int(name[1:]) // 10 for name in answer]
    assert sorted(brands) == [0, 1, 2, 3]
    firsts = {}
    for name in ranking:
        firsts.setdefault(int(name[1:]) // 10, name)
    assert answer[: len(firsts)] == [n for n in ranking if n in firsts.values()]


def test_rules_hold_for_popular_and_for_similar_products_too(model):
    popular = model["search"](k=4, category=["c3"])
    assert ids(popular) == ["p3", "p10", "p17", "p24"]
    similar = ids(model["similar"](product_id="p7", k=5, brand="b0"))
    assert similar
    assert all(int(name[1:]) < 10 for name in similar)
    assert "p7" not in similar


def test_a_rule_of_one_row_leaves_the_others_alone(model):
    plain = model["search"](text=["title 7", "title 21", ""], k=6)
    mixed = model["search"](
        text=["title 7", "title 21", ""], k=6, category=[["c1", ""], ["", ""], ["", ""]]
    )
    np.testing.assert_array_equal(plain["product_id"][1:], mixed["product_id"][1:])
    np.testing.assert_allclose(plain["score"][1:], mixed["score"][1:], atol=1e-6)
    assert all(int(name[1:]) % 7 == 1 for name in ids(mixed, 0))


@pytest.mark.parametrize("name", ["min_price", "max_price"])
def test_a_bound_that_is_no_number_is_refused_with_a_sentence(saved, name):
    with pytest.raises(TfmmError, match=rf"^{name}: expected a number, received nan$"):
        saved["search"](text="title 7", **{name: float("nan")})


def test_embeddings_have_unit_norm_and_rank_as_the_search_does(model):
    query = model["embed_query"](text=["title 7", ""], history=[["p2"], ["p9"]])["embedding"]
    titles = [f"title {n}" for n in range(40)]
    products = model["embed_product"](title=titles)["embedding"]
    np.testing.assert_allclose(np.linalg.norm(query, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(products, axis=1), 1, atol=1e-5)
    answer = model["search"](text=["title 7", ""], history=[["p2"], ["p9"]], k=10)
    scores = query @ products.T
    np.testing.assert_allclose(-np.sort(-scores, axis=1)[:, :10], answer["score"], atol=1e-5)


def test_a_row_answers_the_same_alone_and_in_any_company(model):
    rows = [
        {"text": "title 7", "k": 3},
        {"text": "", "k": 20, "exclude": ["p3"]},
        {"image": b"photo", "k": 5, "exclude": ["p1", "p2", "p3"]},
        {"history": ["p1", "p30"], "k": 20},
        {"audio": b"sound", "text": "title 9", "k": 1},
    ]
    blank = {"text": "", "image": b"", "audio": b"", "history": [], "exclude": [], "k": 5}
    full = [blank | row for row in rows]
    together = model["search"](**{name: [row[name] for row in full] for name in blank})
    for number, row in enumerate(rows):
        alone = model["search"](**{key: [value] for key, value in row.items()})
        k = row["k"]
        np.testing.assert_allclose(together["score"][number, :k], alone["score"][0], atol=1e-5)
        np.testing.assert_array_equal(together["product_id"][number, :k], alone["product_id"][0])


def test_a_repeated_row_stands_for_the_batch(model):
    spread = model["search"](text=["title 1", "title 2"], history="p5", exclude="p1")
    sent = model["search"](text=["title 1", "title 2"], history=[["p5"]] * 2, exclude=[["p1"]] * 2)
    np.testing.assert_array_equal(spread["product_id"], sent["product_id"])


def test_a_wrong_width_from_a_raw_client_is_refused_with_a_sentence(models):
    """A server feeds whatever shape comes: only the graph can notice."""
    sentence = r"^history: expected 4 values a row, received 2$"
    with opened(models("exact")["folder"]) as ask:
        assert ask("serving_default", {})["product_id"].shape == (1, 5)
        with pytest.raises(TfmmError, match=sentence):
            ask("serving_default", {"history": np.array([["p1", "p2"]], object)})


def test_a_returned_column_must_not_take_the_scores_name():
    with pytest.raises(TfmmError, match="other than score,"):
        retriever(settings=('catalogue.returned=["score"]',))


def test_modalities_that_the_query_tower_lacks_have_no_narrow_signature(monkeypatch):
    monkeypatch.setattr(
        fake_parts.FakePreprocessor, "modalities", lambda self, side: ("text", "history")
    )
    names = set(retriever().signatures())
    assert {"search_text", "recommend"} <= names
    assert not {"search_image", "search_audio"} & names
