import json
from collections.abc import Mapping
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepared import write_prepared

import tfmm  # noqa: F401 - selects legacy Keras before TensorFlow is imported
from tfmm.config import (
    CatalogueConfig,
    Config,
    EvaluateConfig,
    HistoryConfig,
    TowerConfig,
    config_to_dict,
)
from tfmm.errors import RequirementMissedError, TfmmError
from tfmm.figures import FURTHER
from tfmm.heldout import Query
from tfmm.report import Report, Row, parse_requirement
from tfmm.searcher import Searcher, without
from tfmm.workflows import evaluate as workflow
from tfmm.workflows.evaluate import Output, evaluate, metric_names

CATALOGUE = [f"p{number}" for number in range(12)]
CONFIG = Config(
    catalogue=CatalogueConfig(history_length=2, exclude_length=2, max_k=12),
    evaluate=EvaluateConfig(ks=(1, 3, 100), bootstrap_samples=50),
)
TEST_FROM_US = 1000


class FakeModel:
    """Answers every query with the catalogue in order, beginning at a product it is told."""

    path = Path("saved_models/fake/3")

    def __init__(self, first: Mapping[str | bytes, str], config: Config = CONFIG) -> None:
        self.manifest = {
            "config": config_to_dict(config),
            "data": {"fingerprint": "abc"},
            "split": {"validation_from_us": 900, "test_from_us": TEST_FROM_US},
        }
        self.signatures = {"serving_default": self._answer}
        self.asked: list[dict[str, Any]] = []
        self._first = first

    def _answer(self, **inputs: Any) -> dict[str, np.ndarray]:
        self.asked.append(inputs)
        depth = max(inputs["k"])
        rows = []
        for row, k in enumerate(inputs["k"]):
            excluded = set(inputs["exclude"][row]) if "exclude" in inputs else set()
            at = CATALOGUE.index(self._start(inputs, row))
            hits = [p for p in CATALOGUE[at:] + CATALOGUE[:at] if p not in excluded][:k]
            rows.append([hit.encode() for hit in hits] + [b""] * (depth - len(hits)))
        score = np.tile(np.linspace(1, 0, depth), (len(rows), 1))
        return {"product_id": np.array(rows, dtype=object), "score": score}

    def _start(self, inputs: dict[str, Any], row: int) -> str:
        parts = [inputs[name][row] for name in ("text", "image", "audio") if name in inputs]
        return next((self._first[part] for part in parts if part in self._first), "p0")


def write(folder: Path, **tables: list[dict[str, Any]]) -> Path:
    """A prepared dataset; products have their id as title."""
    products = [{"product_id": p, "title": f"thing {p}"} for p in CATALOGUE]
    return write_prepared(folder, **{"products": products} | tables)


def judged(folder: Path) -> Path:
    """Two typed queries, a photo and a Chinese one; the typed and the photo share an intent."""
    queries = [
        {"query_id": "q0", "text": "thing p3", "intent": "i"},
        {"query_id": "q1", "text": "odd thing", "slice": "misspelt"},
        {"query_id": "q2", "image": b"photo", "intent": "i"},
        {"query_id": "q3", "text": "红色"},
        {"query_id": "q4", "text": "nothing fits"},
    ]
    judgments = [
        {"query_id": "q0", "product_id": "p3", "grade": 2.0},
        {"query_id": "q0", "product_id": "p4", "grade": 1.0},
        {"query_id": "q1", "product_id": "p5", "grade": 1.0},
        {"query_id": "q2", "product_id": "p3", "grade": 2.0},
        {"query_id": "q3", "product_id": "p1", "grade": 1.0},
        {"query_id": "q4", "product_id": "p1", "grade": 0.0},
    ]
    events = [
        {"timestamp_us": 10, "event_type": "click", "product_id": "p5", "user_id": "u"},
        {"timestamp_us": 11, "event_type": "purchase", "product_id": "p5", "user_id": "v"},
        {"timestamp_us": 12, "event_type": "impression", "product_id": "p3", "user_id": "u"},
        {"timestamp_us": 2000, "event_type": "click", "product_id": "p3", "user_id": "w"},
        {"timestamp_us": 2001, "event_type": "click", "product_id": "p3", "user_id": "x"},
        {"timestamp_us": 2002, "event_type": "click", "product_id": "p3", "user_id": "y"},
    ]
    return write(folder, queries=queries, judgments=judgments, events=events)


def run(model: FakeModel, data: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Report:
    monkeypatch.setattr(workflow, "load_model", lambda path: model)
    files = {name: options.pop(name) for name in ("json", "html") if name in options}
    output = Output(**files, progress=False)
    return evaluate(Path("saved_models/fake"), data, output=output, **options)


def mean(report: Report, kind: str, metric: str, **where: str) -> float:
    row = report.row(kind, **where)
    assert row is not None
    return row.metrics[metric].mean


# "thing p3" is answered p3 p4 ..., "odd thing" p4 p5 ..., the photo p2 p3 ..., "红色" p1 ...
FIRST = {"thing p3": "p3", "odd thing": "p4", b"photo": "p2", "红色": "p1"}


def test_each_kind_has_its_row_with_the_arithmetic_written_out(tmp_path, monkeypatch):
    report = run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch)
    assert mean(report, "text", "recall@1") == (1 / 2 + 0) / 2
    assert mean(report, "text", "ndcg@10") == pytest.approx((1 + 1 / log2(3)) / 2)
    assert mean(report, "photo", "mrr@3") == 1 / 2
    assert mean(report, "photo", "top1_best") == 0
    assert mean(report, "chinese", "top1_best") == 1
    assert mean(report, "all", "hits@1") == 2 / 4
    assert report.row("all").queries == 4
    assert report.row("voice") is None


def test_slices_stand_beside_the_rest_of_their_kind(tmp_path, monkeypatch):
    report = run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch)
    assert mean(report, "text", "mrr@10", slice_name="misspelt") == 1 / 2
    assert mean(report, "text", "mrr@10", slice_name="other") == 1
    assert report.row("photo", slice_name="other") is None


def test_baselines_answer_the_same_queries_from_the_log_before_the_test(tmp_path, monkeypatch):
    report = run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch)
    misspelt = {"slice_name": "misspelt"}
    assert mean(report, "text", "mrr@1", system="popularity", **misspelt) == 1
    assert mean(report, "text", "recall@1", system="bm25", slice_name="other") == 1 / 2
    assert report.row("photo", system="bm25") is None
    assert report.row("all", system="bm25").queries == 3
    lead = report.row("text", system="popularity", **misspelt).lead
    assert lead.mean == pytest.approx(1 / log2(3) - 1)
    assert report.row("text").lead is None


def test_the_random_row_is_close_to_its_expectation(tmp_path, monkeypatch):
    queries = [{"query_id": f"q{n}", "text": f"t{n}"} for n in range(60)]
    rows = [{"query_id": f"q{n}", "product_id": "p1", "grade": 1.0} for n in range(60)]
    data = write(tmp_path / "data", queries=queries, judgments=rows)
    report = run(FakeModel({}), data, monkeypatch)
    assert mean(report, "text", "recall@3", system="random") == pytest.approx(3 / 12, abs=0.06)
    assert report.row("text", system="popularity") is None


def test_kinds_are_compared_on_the_intents_they_share(tmp_path, monkeypatch):
    report = run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch)
    (contrast,) = report.contrasts
    assert (contrast.ours, contrast.theirs, contrast.intents) == ("photo", "text", 1)
    assert contrast.ratio.mean == pytest.approx(1 / log2(3))


def test_what_is_left_out_is_counted(tmp_path, monkeypatch):
    config = Config(
        catalogue=CONFIG.catalogue, evaluate=CONFIG.evaluate, tower=TowerConfig(query=("text",))
    )
    report = run(FakeModel(FIRST, config), judged(tmp_path / "data"), monkeypatch)
    assert report.row("photo") is None
    assert report.facts["left_out"] == {
        "queries without a relevant product": 1,
        "queries of a modality that the model does not read": 1,
    }


def test_without_judgments_held_out_events_are_asked(tmp_path, monkeypatch):
    def event(time: int, user: str, product: str, **extra: Any) -> dict[str, Any]:
        base = {"timestamp_us": time, "event_type": "purchase", "product_id": product}
        return base | {"user_id": user} | extra

    events = [event(time, "u", f"p{time}") for time in range(4)]
    events += [event(1000, "u", "p5"), event(1001, "u", "p2"), event(1002, "new", "p1")]
    events += [event(1003, "new", "p4", query_image=b"photo")]
    model = FakeModel({b"photo": "p2"})
    report = run(model, write(tmp_path / "data", events=events), monkeypatch)
    assert report.facts["on"] == "events"
    assert report.facts["left_out"] == {"shoppers unseen before the period": 1}
    # p0..p3 are seen: two are excluded by the model, two taken out afterwards: p4, p5.
    assert mean(report, "history", "mrr@10") == 1 / 2
    assert report.row("history", system="item_knn").queries == 1
    # The photo is answered p2, p3, p4.
    assert mean(report, "photo", "mrr@10") == 1 / 3
    first = model.asked[0]
    assert (first["history"][0], first["exclude"][0]) == (("p2", "p3"), ("p2", "p3"))
    assert first["k"] == [12, 10]


def test_every_row_says_what_is_recommended(tmp_path, monkeypatch):
    report = run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch)
    # Three typed and one photo query, each answered with ten of twelve products in order.
    assert mean(report, "all", "coverage@10") == 1
    assert mean(report, "photo", "coverage@10") == 10 / 12
    assert mean(report, "photo", "gini@10") == pytest.approx((10 * 2) / 10 / 11)
    assert np.isnan(report.row("photo").metrics["coverage@10"].low)
    # Two training events, both of p5, in 12 products: 1 + 1 and 2 + 1 of 14, add-one smoothed.
    assert mean(report, "photo", "popularity@10") == 2 / 10
    bits = (9 * log2(14 / 1) + log2(14 / 3)) / 10
    assert mean(report, "photo", "novelty@10") == pytest.approx(bits)
    assert mean(report, "text", "popularity@10", system="popularity") == 2 / 10


def test_of_a_system_that_draws_one_draw_counts_as_coverage(tmp_path, monkeypatch):
    report = run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch)
    # One query, ten of twelve products, whichever.
    assert mean(report, "photo", "coverage@10", system="random") == pytest.approx(10 / 12)


def test_without_a_log_nothing_is_popular_or_new(tmp_path, monkeypatch):
    queries = [{"query_id": "q", "text": "t"}]
    rows = [{"query_id": "q", "product_id": "p1", "grade": 1.0}]
    data = write(tmp_path / "data", queries=queries, judgments=rows)
    metrics = run(FakeModel({}), data, monkeypatch).row("text").metrics
    assert "coverage@10" in metrics
    assert not {"novelty@10", "popularity@10"} & metrics.keys()


def refused(folder: Path) -> Path:
    """Two typed queries, of which one has products that were judged irrelevant."""
    queries = [{"query_id": name, "text": f"thing {name}"} for name in ("p3", "p7")]
    grades = [("p3", "p3", 1.0), ("p3", "p2", 0.0), ("p3", "p4", 0.0), ("p7", "p7", 1.0)]
    rows = [{"query_id": q, "product_id": p, "grade": grade} for q, p, grade in grades]
    return write(folder, queries=queries, judgments=rows)


def test_relevant_products_are_told_apart_from_those_judged_irrelevant(tmp_path, monkeypatch):
    report = run(FakeModel({"thing p3": "p4"}), refused(tmp_path / "data"), monkeypatch)
    # p4 p5 ... p11 p0 p1 p2 p3: both irrelevant ones before it. The other query has none.
    assert report.facts["pairs"] == "judged"
    assert mean(report, "text", "roc_auc") == 0
    assert mean(report, "text", "pr_auc") == pytest.approx(1 / 3)
    # BM25 ranks p3 first ("p3") and then those that share "thing", in catalogue order.
    assert mean(report, "text", "roc_auc", system="bm25") == 1
    curve = next(c for c in report.curves if (c.kind, c.system) == ("all", "model"))
    assert (curve.queries, curve.roc[0], curve.roc[-1]) == (1, 0, 1)


def test_where_nothing_is_judged_irrelevant_the_rest_of_the_catalogue_is(tmp_path, monkeypatch):
    queries = [{"query_id": "q", "text": "t", "exclude": ["p11", "p10"]}]
    rows = [{"query_id": "q", "product_id": "p2", "grade": 1.0}]
    data = write(tmp_path / "data", queries=queries, judgments=rows)
    report = run(FakeModel({"t": "p0"}), data, monkeypatch)
    assert report.facts["pairs"] == "catalogue"
    # p0 and p1 stand before p2; of the twelve, two are excluded: seven of nine pairs are right.
    assert mean(report, "text", "roc_auc") == pytest.approx(7 / 9)


def test_the_model_is_asked_as_deep_as_it_answers_and_an_exact_one_only_once(tmp_path, monkeypatch):
    data = judged(tmp_path / "data")
    approximate, exact = FakeModel(FIRST), FakeModel(FIRST)
    exact.manifest["index"] = {"kind": "exact"}
    reports = [run(model, data, monkeypatch) for model in (approximate, exact)]
    assert [set(asked["k"]) for asked in approximate.asked] == [{10}, {12}]
    assert [set(asked["k"]) for asked in exact.asked] == [{12}]
    assert reports[0].rows == reports[1].rows


def test_parts_of_the_catalogue_are_measured_on_their_own_products(tmp_path, monkeypatch):
    report = run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch)
    # p5 alone has training events: it is the head, all others are cold.
    assert report.facts["parts"] == {"product/head": 1, "product/cold": 11}
    assert report.row("product", slice_name="head").queries == 1
    assert mean(report, "product", "mrr@10", slice_name="head") == 1 / 2
    cold = report.row("product", slice_name="cold")
    assert cold.queries == 3
    assert cold.metrics["recall@1"].mean == pytest.approx((1 / 2 + 0 + 1) / 3)
    head = mean(report, "product", "recall@1", slice_name="head", system="popularity")
    assert head == 1


def test_products_with_and_without_a_photo_are_told_apart(tmp_path, monkeypatch):
    products = [{"product_id": p, "title": p} for p in CATALOGUE]
    products[1]["images"] = [b"photo"]
    queries = [{"query_id": name, "text": name} for name in ("p1", "p2")]
    rows = [{"query_id": name, "product_id": name, "grade": 1.0} for name in ("p1", "p2")]
    data = write(tmp_path / "data", products=products, queries=queries, judgments=rows)
    report = run(FakeModel({"p1": "p1", "p2": "p1"}), data, monkeypatch)
    assert mean(report, "product image", "mrr@10", slice_name="with") == 1
    assert mean(report, "product image", "mrr@10", slice_name="without") == 1 / 2


def test_queries_are_sliced_by_what_they_hold_and_by_language(tmp_path, monkeypatch):
    report = run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch)
    names = {(row.kind, row.slice) for row in report.slices if row.system == "model"}
    assert {("holds", "words"), ("holds", "photo")} <= names
    assert {("language", "chinese"), ("language", "not chinese")} <= names
    assert not any(dimension == "shopper" for dimension, _ in names)
    assert mean(report, "holds", "hits@1", slice_name="words") == 2 / 3
    assert mean(report, "language", "hits@1", slice_name="chinese") == 1


def test_held_out_events_are_sliced_by_shopper(tmp_path, monkeypatch):
    def event(time: int, user: str) -> dict[str, Any]:
        base = {"event_type": "click", "product_id": "p2", "query_text": "t"}
        return base | {"timestamp_us": time, "user_id": user}

    data = write(tmp_path / "data", events=[event(1, "u"), event(1000, "u"), event(1001, "new")])
    report = run(FakeModel({}), data, monkeypatch)
    names = {row.slice: row.queries for row in report.slices if row.kind == "shopper"}
    assert names == {"new": 1, "returning": 1}


def test_a_requirement_may_name_a_slice_and_a_further_metric(tmp_path, monkeypatch):
    data = judged(tmp_path / "data")
    require = ("product/head:mrr@10=0.5", "coverage@10=1", "holds/photo:roc_auc=0.5")
    run(FakeModel(FIRST), data, monkeypatch, require=require)
    require = ("product/head:roc_auc=0.1", "product/cold:mrr@10=0.9")
    with pytest.raises(RequirementMissedError) as missed:
        run(FakeModel(FIRST), data, monkeypatch, require=require)
    assert str(missed.value).startswith("product/head:roc_auc: expected 0.1, it does not apply")
    assert "product/cold:mrr@10: expected at least 0.9" in str(missed.value)


def searcher(model: FakeModel, depth: int, max_k: int) -> Searcher:
    catalogue = CatalogueConfig(history_length=2, exclude_length=2, max_k=max_k)
    return Searcher(model, Config(catalogue=catalogue), depth)


def test_more_exclusions_than_the_input_is_wide_leave_the_ranking_exact():
    model = FakeModel({"t": "p0"})
    query = Query("q", {}, text="t", exclude=("p1", "p2", "p0", "p4", "p9"))
    (ranking,) = (asker := searcher(model, 4, 12)).rank([query])
    assert ranking == ["p3", "p5", "p6", "p7"]
    assert model.asked[0]["k"] == [4 + 3]
    assert asker.cut_short == 0


def test_what_happened_in_histories_is_sent_to_models_that_read_it():
    told = {"history_event": ("click", "cart"), "history_age_s": (9.0, 0.0)}
    queries = [Query("a", {}, history=("p1", "p2"), **told), Query("b", {}, text="t")]
    plain = {"text": ["", "t"], "history": [("p1", "p2"), ()]}
    assert searcher(FakeModel({}), 4, 12).content(queries) == plain
    config = Config(history=HistoryConfig(encoder="attention", events=True, ages=True))
    asker = Searcher(FakeModel({}), config, 4)
    facts = {"history_event": [("click", "cart"), ()], "history_age_seconds": [(9.0, 0.0), ()]}
    assert asker.content(queries) == plain | facts
    without_it = [without(query, "history") for query in queries]
    assert asker.content(without_it) == {"text": ["", "t"]}


def test_a_ranking_that_the_largest_k_cuts_short_is_counted():
    query = Query("q", {}, text="t", exclude=("p1", "p2", "p0", "p4", "p9"))
    asker = searcher(FakeModel({"t": "p0"}), 4, 5)
    assert asker.rank([query]) == [["p3", "p5"]]
    assert asker.cut_short == 1


def test_requirements_are_checked_after_everything_is_written(tmp_path, monkeypatch, capsys):
    data, path = judged(tmp_path / "data"), tmp_path / "figures.json"
    require = ("hits@1=0.4", "text/misspelt:mrr@10=0.9", "voice:recall@1=0.1")
    with pytest.raises(RequirementMissedError) as missed:
        run(FakeModel(FIRST), data, monkeypatch, require=require, json=path)
    assert str(missed.value) == (
        "text/misspelt:mrr@10: expected at least 0.9, received 0.5000; "
        "voice:recall@1: expected 0.1, there are no such queries"
    )
    assert "misspelt" in capsys.readouterr().out
    assert len(json.loads(path.read_text())["missed"]) == 2


def test_requirements_that_are_met_pass(tmp_path, monkeypatch):
    require = ("recall@10=0.9", "photo:recall@2=1", "chinese:top1_best=1")
    run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch, require=require)


def test_json_says_what_was_measured_and_holds_every_figure(tmp_path, monkeypatch):
    path = tmp_path / "figures.json"
    run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch, json=path)
    figures = json.loads(path.read_text())
    assert figures["model"] == {"name": "model", "version": "3"}
    assert figures["dataset"] == {"source": "shop", "fingerprint": "abc"}
    assert {"tensorflow", "tfmm", "numpy"} <= figures["versions"].keys()
    assert {"date", "seconds", "peak_memory_mib", "machine", "on", "notes"} <= figures.keys()
    row = next(r for r in figures["rows"] if (r["kind"], r["system"]) == ("photo", "model"))
    ranking = set(metric_names(CONFIG.evaluate.ks, max_k=12))
    assert row["metrics"].keys() == ranking | set(FURTHER)
    assert row["metrics"]["coverage@10"] == {"mean": 10 / 12, "low": None, "high": None}
    assert {"slices", "curves", "ablations"} <= figures.keys()
    assert len(figures["curves"][0]["roc"]) == len(figures["curves"][0]["precision"]) == 51
    assert row["metrics"]["mrr@3"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert not list(tmp_path.glob(".*staging"))


def test_tables_are_plain_text_that_a_pipe_does_not_cut(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    report = run(FakeModel(FIRST), judged(tmp_path / "data"), monkeypatch)
    out = capsys.readouterr().out
    assert out == report.to_table() + "\n"
    assert "\x1b" not in out
    assert "…" not in out
    assert "not measured beyond catalogue.max_k = 12: 100" in out
    header = next(line for line in out.splitlines() if "ndcg@10" in line)
    assert header.split() == [
        *("queries", "system", "n", "ndcg@10", "recall@1", "recall@10", "mrr@10", "top1_best"),
        "lead",
    ]


def test_figures_that_are_not_finite_become_null():
    row = Row("text", "", "model", 1, {}, None)
    facts = {"left_out": {}, "seconds": float("nan"), "peak_memory_mib": 1.0}
    assert Report(facts, (row,)).to_json()["seconds"] is None


@pytest.mark.parametrize("text", ["recall@10", "recall@10=high", "0.3", "recall=0.3", "x@1=1"])
def test_a_requirement_that_cannot_be_read_is_refused(text: str):
    with pytest.raises(TfmmError, match="expected"):
        parse_requirement(text)


def test_a_requirement_beyond_the_largest_k_is_refused():
    with pytest.raises(TfmmError, match=r"catalogue.max_k = 12, received 50"):
        metric_names((1,), [parse_requirement("recall@50=0.1")], max_k=12)


def test_nothing_to_evaluate_on_is_an_error(tmp_path, monkeypatch):
    data = write(tmp_path / "data")
    with pytest.raises(TfmmError, match="expected queries to evaluate on, found none on events"):
        run(FakeModel({}), data, monkeypatch)
    with pytest.raises(TfmmError, match="expected queries and judgments"):
        run(FakeModel({}), data, monkeypatch, on="judgments")
    with pytest.raises(TfmmError, match="--on: expected auto, judgments or events"):
        run(FakeModel({}), data, monkeypatch, on="dice")


def test_another_dataset_than_the_models_is_noted(tmp_path, monkeypatch):
    model = FakeModel(FIRST)
    model.manifest["data"] = {"fingerprint": "other"}
    report = run(model, judged(tmp_path / "data"), monkeypatch)
    assert report.facts["notes"][0] == "the dataset is not the one that the model was made from"


def test_a_saved_model_of_somebody_else_is_refused(tmp_path, monkeypatch):
    model = FakeModel({})
    model.manifest = {}
    with pytest.raises(TfmmError, match="expected a model that tfmm exported"):
        run(model, judged(tmp_path / "data"), monkeypatch)
