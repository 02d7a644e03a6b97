"""Sequences of refreshes, and a fresh export of what they end with."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import refreshable
from hypothesis import given, settings
from hypothesis import strategies as st
from refreshable import ROWS, applied, product, same_as_fresh, write_table

from tfmm.refreshing import opened
from tfmm.workflows import refresh as workflow
from tfmm.workflows.refresh import Source, refresh

pytestmark = pytest.mark.slow
NUMBERS = st.integers(0, 36)
FULL = st.tuples(NUMBERS, st.sampled_from(["", "removed"]), st.integers(0, 3))
PRICE = st.tuples(NUMBERS, st.just("price"), st.integers(1, 90))
STEPS = st.lists(
    st.one_of(
        st.lists(FULL, min_size=1, max_size=12, unique_by=lambda one: one[0]),
        st.lists(PRICE, min_size=1, max_size=12, unique_by=lambda one: one[0]),
    ),
    min_size=1,
    max_size=3,
)


def table_of(step: list[tuple[int, str, int]], known: set[str]) -> list[dict[str, Any]]:
    """Rows of a step that can be followed."""
    rows = []
    for number, what, value in step:
        product_id = f"p{number}"
        if what and product_id not in known:
            continue
        match what:
            case "removed":
                rows.append({"product_id": product_id, "removed": True})
            case "price":
                rows.append({"product_id": product_id, "price": float(value)})
            case _:
                rows.append(product(number, seed=value))
    return rows


def followed(model: Path, folder: Path, steps: list[Any]) -> tuple[Path, list[dict[str, Any]]]:
    """Refreshes a model step by step; its last version, and the products that it should have."""
    rows, version = ROWS, model / "1"
    for number, step in enumerate(steps):
        table = table_of(step, {row["product_id"] for row in rows})
        if table:
            rows = applied(rows, table)
            source = Source(write_table(folder / f"{number}" / "products.jsonl", table))
            version = refresh(model, source, progress=False)
    return version, rows


@settings(max_examples=5)
@given(steps=STEPS)
def test_after_any_refreshes_an_exact_model_holds_what_a_fresh_export_would(
    steps, words_shop, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("sequence")
    shutil.copytree(words_shop[1], folder / "words" / "1")
    with pytest.MonkeyPatch.context() as patch:
        # Every variable is compared here; comparing answers as well takes seconds a step.
        patch.setattr(workflow, "check_version", lambda *_, **told: {})
        version, rows = followed(folder / "words", folder, steps)
    if version.name != "1":
        same_as_fresh(words_shop[0], version, rows, folder / "fresh")


ASKED = [
    ("serving_default", {}),
    ("search_text", {"text": np.array([b"red lamp", b"black boot mug", b""], object)}),
    ("recommend", {"history": np.array([[b"p2", b"p40", b"p7"], [b"", b"", b"p3"]], object)}),
    ("similar", {"product_id": np.array([b"p40", b"p4", b"p7", b"late"], object)}),
    (
        "serving_default",
        {
            "text": np.array([b"green chair", b"bag"], object),
            "category": np.array([[b"near", b""], [b"", b""]], object),
            "max_price": np.array([40.0, 20.0], np.float32),
            "in_stock_only": np.array([False, True]),
            "max_per_category": np.array([0, 2], np.int32),
            "k": np.array([20, 6], np.int32),
        },
    ),
    ("embed_product", {"product_id": np.array([b"p1", b"late"], object)}),
]


def test_refreshed_and_fresh_models_answer_alike(words_shop, tmp_path):
    run = words_shop[0]
    shutil.copytree(words_shop[1], tmp_path / "words" / "1")
    steps = [
        [product(40), product(41) | {"product_id": "late"}, product(2, seed=1)],
        [{"product_id": "p7", "removed": True}, {"product_id": "p4", "removed": True}],
        [{"product_id": f"p{number}", "price": 11.0 + number} for number in (1, 40, 9)],
        [product(4, seed=2)],
    ]
    rows = ROWS
    for number, table in enumerate(steps):
        rows = applied(rows, table)
        source = Source(write_table(tmp_path / f"{number}" / "products.jsonl", table))
        refreshed = refresh(tmp_path / "words", source, progress=False)
    assert refreshed.name == "5"
    fresh = refreshable.publish(run, tmp_path / "fresh", rows)
    with opened(refreshed) as ask, opened(fresh) as expected:
        for signature, given_inputs in ASKED:
            found, true = ask(signature, given_inputs), expected(signature, given_inputs)
            for name, values in true.items():
                if values.dtype.kind == "f":
                    np.testing.assert_allclose(found[name], values, atol=1e-5)
                else:
                    np.testing.assert_array_equal(found[name], values, err_msg=signature)
