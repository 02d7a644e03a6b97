"""What a call's arrays tell of its queries."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import json
from pathlib import Path

import numpy as np
import pytest

from tfmm.serving.insight import Catalogue, Queries, catalogue_of, queries_of


def strings(*rows: object) -> np.ndarray:
    return np.array(rows, object)


HITS = {"product_id": strings([b"a", b"b"], [b"", b""], [b"c", b""])}


def test_rows_are_counted_by_what_they_hold_and_what_they_find():
    given = {"text": strings(b"red", b"", b"mug"), "k": np.array([2], np.int32)}
    assert queries_of(given, HITS) == Queries(3, 1, {"text": 2})


def test_an_input_of_one_row_is_held_by_every_row():
    given = {"history": strings([b"", b"a"]), "image": strings(b"")}
    assert queries_of(given, HITS) == Queries(3, 1, {"history": 3, "image": 0})


def test_hits_that_rules_leave_out_are_counted_for_rows_that_have_rules():
    given = {
        "category": strings([b"", b""], [b"shoes", b""], [b"", b""]),
        "min_price": np.array([-np.finfo(np.float32).max] * 2 + [3.0], np.float32),
        "in_stock_only": np.array([False]),
        "k": np.array([2], np.int32),
    }
    rules = ("category", "min_price", "in_stock_only", "max_per_category")
    counted = queries_of(given, HITS, rules)
    # The second row wanted two and got none, the third wanted two and got one.
    assert (counted.wanted, counted.filtered) == (4, 3)
    whole = queries_of(given | {"in_stock_only": np.array([True])}, HITS, rules)
    assert (whole.wanted, whole.filtered) == (6, 3)
    assert queries_of({"k": np.array([2])}, HITS, rules).wanted == 0


def test_what_ranks_no_products_asks_no_query():
    assert queries_of({"text": strings(b"red")}, {"embedding": np.zeros((1, 4))}) is None


@pytest.mark.parametrize("content", [None, "no json", "{}", '{"created": "x", "catalogue": {}}'])
def test_a_version_without_tfmms_manifest_tells_nothing(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "assets.extra").mkdir()
        (tmp_path / "assets.extra" / "manifest.json").write_text(content)
    assert catalogue_of(tmp_path) is None


def test_a_manifest_tells_the_age_and_the_size(tmp_path: Path):
    (tmp_path / "assets.extra").mkdir()
    manifest = {"created": "1970-01-01T00:01:00+00:00", "catalogue": {"products": 24}}
    (tmp_path / "assets.extra" / "manifest.json").write_text(json.dumps(manifest))
    assert catalogue_of(tmp_path) == Catalogue(60.0, 24, ("in_stock_only",))
    columns = {"facets": ["brand"], "ranges": ["price"]}
    manifest |= {"config": {"catalogue": columns}}
    (tmp_path / "assets.extra" / "manifest.json").write_text(json.dumps(manifest))
    rules = ("brand", "min_price", "max_price", "max_per_brand", "in_stock_only")
    assert catalogue_of(tmp_path).rules == rules


@pytest.mark.parametrize(
    ("index", "is_quick"),
    [
        ({"kind": "exact", "products": 100_000, "dim": 64}, True),
        ({"kind": "exact", "products": 1_000_000, "dim": 64}, False),
        ({"kind": "ivf", "products": 1_000_000, "dim": 64}, True),
    ],
)
def test_threads_share_the_search_of_a_large_catalogue_alone(tmp_path: Path, index, is_quick: bool):
    (tmp_path / "assets.extra").mkdir()
    manifest = {"created": "1970-01-01T00:01:00+00:00", "catalogue": {"products": 24}}
    text = json.dumps(manifest | {"index": index})
    (tmp_path / "assets.extra" / "manifest.json").write_text(text)
    assert catalogue_of(tmp_path).is_quick == is_quick
