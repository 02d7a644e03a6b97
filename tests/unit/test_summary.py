import numpy as np
import pytest

from tfmm.report import Contrast
from tfmm.summary import Bootstrap, Label, Measured, contrasts, rows

FEW = Bootstrap(samples=20)


def measured(*queries: tuple[str, str, float], language: str = "", **others: list[float]):
    """Queries as (kind[ parts][/slice], intent, NDCG@10 of the model)."""
    labels = []
    for place, intent, _ in queries:
        kind, _, name = place.partition("/")
        kind, _, parts = kind.partition(" ")
        spoken = language if kind == "voice" else ""
        labels.append(Label(kind, tuple((parts or kind).split("+")), name, intent, spoken))
    values = {"model": np.array([[value] for *_, value in queries])}
    values |= {system: np.array(column)[:, None] for system, column in others.items()}
    return Measured(labels, ["ndcg@10"], values)


def found(given: Measured, ours: str, theirs: str) -> Contrast | None:
    pairs = {(c.ours, c.theirs): c for c in contrasts(given, FEW)}
    return pairs.get((ours, theirs))


def test_only_intents_that_both_kinds_have_are_compared():
    given = measured(
        ("photo", "i", 0.4), ("photo", "j", 0.9), ("text", "i", 0.8), ("text", "k", 0.0)
    )
    contrast = found(given, "photo", "text")
    assert (contrast.intents, contrast.ours_mean, contrast.theirs_mean) == (1, 0.4, 0.8)
    assert contrast.ratio.mean == 0.5
    assert contrast.difference.mean == pytest.approx(-0.4)


def test_several_queries_of_an_intent_count_as_their_mean():
    given = measured(("voice", "i", 0.2), ("voice", "i", 0.4), ("text", "i", 0.6))
    assert found(given, "voice", "text").ours_mean == pytest.approx(0.3)


def test_queries_without_an_intent_are_compared_with_nothing():
    assert contrasts(measured(("voice", "", 0.2), ("text", "", 0.4)), FEW) == ()


def test_a_mixture_is_compared_with_the_best_single_kind_and_with_the_best_of_each_intent():
    given = measured(
        *(("mixture text+photo", intent, 0.7) for intent in "ij"),
        *(("text", "i", 0.9), ("text", "j", 0.1)),
        *(("photo", "i", 0.5), ("photo", "j", 0.6)),
    )
    assert found(given, "mixture", "words").theirs_mean == pytest.approx(0.5)
    assert found(given, "mixture text+photo", "words") is None
    assert found(given, "mixture", "best single (photo)").theirs_mean == pytest.approx(0.55)
    assert found(given, "mixture", "best single of each intent").theirs_mean == 0.75


def test_a_kind_that_shares_few_intents_is_not_the_best_single_one():
    given = measured(
        *(("mixture text+photo", intent, 0.7) for intent in "ijk"),
        *(("text", intent, 0.5) for intent in "ijk"),
        ("photo", "i", 1.0),
    )
    assert found(given, "mixture", "best single (words)").intents == 3


def test_a_mixture_is_compared_with_its_own_parts_only():
    given = measured(
        ("mixture text+photo", "i", 0.7),
        ("mixture photo+voice", "i", 0.5),
        *((kind, "i", 0.4) for kind in ("text", "photo", "voice", "history")),
    )
    names = {(c.ours, c.theirs) for c in contrasts(given, FEW) if c.ours.startswith("mixture")}
    each = "best single of each intent"
    own = {b for a, b in names if a == "mixture text+photo"}
    assert own - {"best single (words)", "best single (photo)"} == {"words", "photo", each}
    assert {"words", "photo", "voice"} <= {b for a, b in names if a == "mixture"}
    assert found(given, "mixture text+photo", "words").ours_mean == 0.7
    assert found(given, "mixture", "words").ours_mean == pytest.approx(0.6)


def test_the_words_of_a_mixture_may_be_of_any_language():
    given = measured(
        ("mixture text+photo", "i", 0.7),
        ("mixture chinese+photo", "j", 0.5),
        *(("text", "i", 0.4), ("chinese", "j", 0.2)),
    )
    contrast = found(given, "mixture", "words")
    assert (contrast.intents, contrast.theirs_mean) == (2, pytest.approx(0.3))


def test_a_mixture_of_a_named_slice_goes_by_that_name():
    given = measured(
        ("mixture text+photo/photo and words", "i", 0.7),
        ("mixture photo+voice/photo and voice", "i", 0.5),
        ("photo", "i", 0.4),
    )
    names = {contrast.ours for contrast in contrasts(given, FEW)} - {"photo"}
    assert names == {"mixture", "mixture/photo and words", "mixture/photo and voice"}


def test_speech_is_compared_with_what_is_typed_in_its_language():
    given = measured(
        ("voice", "i", 0.3), ("chinese", "i", 0.6), ("text", "i", 0.9), language="zh-CN"
    )
    assert found(given, "voice zh-CN", "chinese").ratio.mean == pytest.approx(0.5)
    assert found(given, "voice zh-CN", "text") is None
    english = measured(("voice", "i", 0.3), ("chinese", "i", 1), ("text", "i", 0.6), language="en")
    assert found(english, "voice en", "text").ratio.mean == pytest.approx(0.5)
    assert found(english, "voice en", "chinese") is None


def test_slices_are_compared_too():
    given = measured(("voice/unheard", "i", 0.3), ("voice", "i", 0.5), ("text", "i", 0.6))
    assert found(given, "voice/unheard", "text").ours_mean == 0.3
    assert found(given, "voice", "text").ours_mean == pytest.approx(0.4)


def test_a_slice_of_speech_is_compared_with_each_slice_of_what_is_typed():
    given = measured(("voice/unheard", "i", 0.3), ("text/plain", "i", 0.6), ("text/typo", "i", 0.2))
    assert found(given, "voice/unheard", "text/plain").ratio.mean == 0.5
    assert found(given, "voice/unheard", "text/typo").theirs_mean == 0.2
    assert found(given, "voice/unheard", "text") is None
    assert found(given, "voice", "text").theirs_mean == pytest.approx(0.4)


def test_slices_of_one_name_are_compared_with_each_other():
    given = measured(("chinese/plain", "i", 0.5), ("text/plain", "i", 0.6), ("text/typo", "i", 0.2))
    assert found(given, "chinese/plain", "text/plain").theirs_mean == 0.6
    assert found(given, "chinese/plain", "text/typo") is None


def test_a_row_of_a_system_counts_only_the_queries_that_it_answers():
    given = measured(
        ("mixture", "", 0.5), ("mixture", "", 0.7), bm25=[0.6, np.nan], other=[np.nan, np.nan]
    )
    by_system = {row.system: row for row in rows(given, FEW)}
    assert by_system.keys() == {"model", "bm25"}
    assert by_system["bm25"].queries == 1
    assert by_system["bm25"].lead.mean == pytest.approx(0.5 - 0.6)
    assert by_system["model"].metrics["ndcg@10"].mean == pytest.approx(0.6)


def test_one_kind_has_no_row_for_all_kinds():
    assert {row.kind for row in rows(measured(("text", "", 0.5)), FEW)} == {"text"}
    both = rows(measured(("text", "", 0.5), ("photo", "", 0.5)), FEW)
    assert [row.kind for row in both] == ["all", "text", "photo"]
