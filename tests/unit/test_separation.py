import numpy as np
import pytest

from tfmm.heldout import Query
from tfmm.roc import GRID
from tfmm.separation import CATALOGUE, JUDGED, Separation

INDEX = {name: number for number, name in enumerate("abcdef")}


def test_areas_stand_in_the_order_of_the_queries_and_are_missing_where_nothing_applies():
    separation = Separation(JUDGED, INDEX)
    both, good = Query("q", {"a": 1.0, "b": 0.0}, text="t"), Query("r", {"a": 1.0}, text="t")
    for query, ranking in [(both, [0, 1]), (good, [0, 1]), (both, None), (both, [1, 0])]:
        separation.add(query, "model", ranking)
    np.testing.assert_array_equal(
        separation.areas("model"), [[1, 1], [np.nan] * 2, [np.nan] * 2, [0, 1 / 2]]
    )


def test_what_a_query_excludes_is_not_in_the_catalogue_that_it_is_measured_on():
    separation = Separation(CATALOGUE, INDEX)
    query = Query("q", {"c": 1.0}, text="t", exclude=("a", "gone"))
    # b before c; d, e, f after it: three of four.
    separation.add(query, "model", [1, 2, 3, 4, 5])
    assert separation.areas("model")[0, 0] == pytest.approx(3 / 4)


def test_curves_are_the_means_of_the_queries_of_all_kinds_and_of_the_models_kinds():
    separation = Separation(CATALOGUE, INDEX)
    words, photo = Query("q", {"a": 1.0}, text="t"), Query("r", {"f": 1.0}, image=b"x")
    for system in ("model", "random"):
        for query in (words, photo):
            separation.add(query, system, [0, 1, 2, 3, 4, 5])
    curves = {(curve.kind, curve.system): curve for curve in separation.curves()}
    assert set(curves) == {
        ("all", "model"), ("text", "model"), ("photo", "model"), ("all", "random"),
    }  # fmt: skip
    assert curves["all", "model"].queries == 2
    assert curves["text", "model"].roc == (1,) * len(GRID)
    assert curves["photo", "model"].roc == (0,) * (len(GRID) - 1) + (1,)
    assert curves["all", "model"].roc == (0.5,) * (len(GRID) - 1) + (1,)
    # Precision 1 at every recall, and 1/6.
    assert curves["all", "model"].precision == (pytest.approx((1 + 1 / 6) / 2, abs=1e-4),) * 51
