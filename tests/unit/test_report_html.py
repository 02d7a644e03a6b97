"""The page of an evaluation: whole in itself, safe, and saying what the JSON says."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import fake_parts
import pytest
from PIL import Image
from prepared import write_prepared

from tfmm import artifacts
from tfmm.config import config_to_dict
from tfmm.heldout import Query
from tfmm.sheets import SIDE_PX, Sample, thumbnail
from tfmm.workflows.evaluate import Output, evaluate

COUNT = 30
WICKED = '<script>alert("1")</script> & <img src="http://example.org/x.png">'
VOID = {"meta", "img", "br", "path", "circle"}


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


class Page(HTMLParser):
    """Tags, attributes, and the texts of a page; refuses tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "td" in self._open:
            self.rows[-1][-1] += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def photo(number: int, format_: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (300, 150), (number * 8, 90, 120)).save(file, format_)
    return file.getvalue()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """A page and its JSON."""
    folder = tmp_path_factory.mktemp("page")
    fake_parts.retriever(COUNT).save(folder / "shop" / "1")
    recipe = fake_parts.config("evaluate.bootstrap_samples=50", f'name="{"<b>shop"}"')
    manifest = {"config": config_to_dict(recipe), "split": {"test_from_us": 1000}}
    artifacts.write_manifest(folder / "shop" / "1", manifest)
    products = [
        {"product_id": f"p{n}", "title": f"title {n}", "images": [photo(n)]} for n in range(COUNT)
    ]
    products[4]["title"] = WICKED
    for product in products[5:15]:
        product["images"] = []
    queries = [
        {"query_id": "q0", "text": "title 4", "slice": "<i>plain"},
        {"query_id": "q1", "text": WICKED},
        {"query_id": "q2", "image": photo(5)},
        {"query_id": "q3", "audio": b"RIFF sound", "language": "en"},
        {"query_id": "q4", "history": ["p4", "p6"]},
    ]
    judged = [
        {"query_id": f"q{n}", "product_id": f"p{4 + n}", "grade": grade}
        for n in range(5)
        for grade in [1.0]
    ]
    events = [
        {"timestamp_us": n, "event_type": "click", "product_id": f"p{n % 7}", "user_id": f"u{n}"}
        for n in range(20)
    ]
    data = write_prepared(
        folder / "data", products=products, queries=queries, judgments=judged, events=events
    )
    output = Output(folder / "figures.json", folder / "page.html", progress=False)
    evaluate(folder / "shop", data, ablation=True, output=output)
    assert not list(folder.glob(".*staging"))
    return (folder / "page.html").read_text("utf-8"), json.loads(
        (folder / "figures.json").read_text("utf-8")
    )


@pytest.fixture(scope="module")
def page(written: tuple[str, dict[str, Any]]) -> Page:
    return Page(written[0])


def test_nothing_outside_the_page_is_referenced(page: Page, written: tuple[str, dict[str, Any]]):
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form"), tag
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            value = attributes.get(name, "data:")
            assert value.startswith("data:"), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert "url(" not in attributes.get("style", "")
    (style,) = re.findall(r"<style>(.*?)</style>", written[0], re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [m["content"] for m in page.named("meta") if "http-equiv" in m]
    assert "default-src 'none'" in policy


def test_what_a_catalogue_says_is_text_and_nothing_else(page: Page):
    assert page.texts.count(WICKED) >= 2  # a title below a hit, and a query
    assert any(attributes.get("alt") == WICKED for attributes in page.named("img"))
    assert "<b>shop 1" in page.texts
    assert any("<i>plain" in text for text in page.texts)


def test_the_figures_are_those_of_the_json(page: Page, written: tuple[str, dict[str, Any]]):
    figures = written[1]
    rows = {row[0]: row for row in page.rows if len(row) > 5}
    whole = next(r for r in figures["rows"] if (r["kind"], r["system"]) == ("all", "model"))
    for row in [*figures["rows"], *figures["slices"]]:
        if row["system"] == "model":
            where = f"{row['kind']}/{row['slice']}" if row["slice"] else row["kind"]
            cells = next(r for r in page.rows if r and r[0] == where)
            interval = row["metrics"]["ndcg@10"]
            expected = "{mean:.4f} [{low:.3f}, {high:.3f}]".format(**interval)
            assert cells[1:3] == [str(row["queries"]), expected], where
    assert rows.keys() >= {"all", "text", "photo", "voice", "history"}
    exposed = next(row for row in page.rows if row[:2] == ["all", "model"])
    for metric in ("roc_auc", "coverage@10", "novelty@10"):
        assert f"{whole['metrics'][metric]['mean']:.4f}" in exposed
    for ablation in figures["ablations"]:
        place = [ablation[name] for name in ("side", "without", "kind", "metric")]
        cells = next(row for row in page.rows if row[:4] == place)
        assert cells[8] == f"{ablation['reduced']:.4f}"


def test_every_figure_of_every_system_is_somewhere(page: Page, written: tuple[str, dict[str, Any]]):
    every = {tuple(row[:2]): row[3:] for row in page.rows if len(row) > 15}
    for row in [*written[1]["rows"], *written[1]["slices"]]:
        where = f"{row['kind']}/{row['slice']}" if row["slice"] else row["kind"]
        cells = every[where, row["system"]]
        assert f"{row['metrics']['map@5']['mean']:.4f}" in cells


def test_there_are_three_charts_with_a_line_for_each_system(page: Page):
    names = [svg["aria-label"] for svg in page.named("svg") if "aria-label" in svg]
    assert names == ["recall@k", "ROC", "precision and recall"]
    lines = [path for path in page.named("path") if path.get("fill") == "none"]
    assert len(lines) == 3 * 6  # the model and five baselines


def test_hits_have_their_photo_title_score_and_whether_they_are_relevant(
    page: Page, written: tuple[str, dict[str, Any]]
):
    kinds = [figure["class"] for figure in page.named("figure")]
    assert len(kinds) == 5 * 8
    assert "hit relevant" in kinds
    assert any(re.fullmatch(r"1\.000, ✓ grade 1", text) for text in page.texts)
    assert any(re.fullmatch(r"-?0\.\d{3}, not relevant", text) for text in page.texts)
    assert "no photo" in page.texts
    assert [audio["src"] for audio in page.named("audio")] == [
        "data:audio/wav;base64," + base64.b64encode(b"RIFF sound").decode()
    ]
    assert "looked at before" in page.texts


def test_photos_are_small_jpegs(page: Page):
    for image in page.named("img"):
        content = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
        with Image.open(io.BytesIO(content)) as opened:
            assert (opened.format, max(opened.size)) == ("JPEG", SIDE_PX)


def test_a_photo_that_cannot_be_read_has_no_thumbnail():
    assert thumbnail(b"") == thumbnail(b"no photo") == thumbnail(photo(1)[:60]) == b""


def test_the_same_queries_are_drawn_whatever_their_order_and_figures():
    queries = [Query(f"q{n}", {"p": 1.0}, text="t") for n in range(50)]
    first, second = Sample(), Sample()
    for query in queries:
        first.offer(query, 0.5)
    for query in reversed(queries):
        second.offer(query, 0.9)
    drawn = [[query.query_id for query, *_ in sample.chosen()] for sample in (first, second)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 3


def test_one_query_that_found_nothing_is_shown_beside_those_drawn():
    sample = Sample()
    for number in range(50):
        sample.offer(Query(f"q{number}", {"p": 1.0}, text="t"), 0.0)
        sample.offer(Query(f"r{number}", {"p": 1.0}, image=b"x"), 0.5)
    chosen = sample.chosen()
    assert [is_miss for *_, is_miss in chosen] == [False] * 3 + [True] + [False] * 3
    assert len({query.query_id for query, *_ in chosen}) == 7
