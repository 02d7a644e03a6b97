from __future__ import annotations

import hashlib
import io
import re
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from pipelines import demo
from pipelines.demo_shop import voices
from pipelines.demo_shop.catalogue import make_catalogue
from pipelines.demo_shop.language import is_reserved, misspell
from pipelines.demo_shop.ogg import with_serial
from pipelines.demo_shop.photos import catalogue_photo, shopper_photo
from pipelines.demo_shop.shoppers import EXAMINATION, make_shoppers, simulate
from pipelines.demo_shop.silhouettes import SILHOUETTES
from pipelines.demo_shop.words import ATTRIBUTES, CATEGORIES, KINDS, MATERIALS

SMALL = ["--products", "150", "--shoppers", "40", "--sessions", "260", "--queries", "6"]


def _make(out: Path, *options: str) -> Path:
    result = CliRunner().invoke(demo.main, [str(out), *SMALL, *options])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory.mktemp("demo") / "shop", "--processes", "1")


def _rows(shop: Path, table: str, *columns: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(
        shop / f"{table}.parquet", columns=list(columns) or None
    ).to_pylist()
    return rows


def _pixels(photo: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"), np.float64)


def test_the_shop_has_the_asked_variety() -> None:
    assert len(KINDS) >= 44
    assert len(CATEGORIES) == 8
    assert len(ATTRIBUTES["colour"]) == 14
    assert len(ATTRIBUTES["pattern"]) >= 8
    assert len(ATTRIBUTES["brand"]) == 24
    assert {kind.name for kind in KINDS} == set(SILHOUETTES)
    assert {name for kind in KINDS for name in kind.materials} == {m.name for m in MATERIALS}


def test_no_word_means_two_things() -> None:
    for language in ("en", "zh"):
        meanings: Counter[str] = Counter()
        for notions in (KINDS, *ATTRIBUTES.values()):
            for notion in notions:
                meanings.update(set(getattr(notion, language)))
        assert [word for word, count in meanings.items() if count > 1] == []


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_processes(
    shop: Path, tmp_path: Path
) -> None:
    again = _make(tmp_path / "again", "--processes", "2")
    for name in sorted(demo.FILES):
        digests = {hashlib.sha256((d / name).read_bytes()).hexdigest() for d in (shop, again)}
        assert len(digests) == 1, name


def test_another_seed_gives_another_shop(shop: Path, tmp_path: Path) -> None:
    other = _make(tmp_path / "other", "--seed", "8", "--no-voices", "--processes", "1")
    for name in sorted(demo.FILES):
        assert (shop / name).read_bytes() != (other / name).read_bytes()
    assert all(row["audio"] is None for row in _rows(other, "queries", "audio"))
    assert all(row["query_audio"] is None for row in _rows(other, "events", "query_audio"))


def test_the_tables_have_the_columns_of_the_data_contract(shop: Path) -> None:
    names = {
        table: pq.read_schema(shop / f"{table}.parquet").names
        for table in ("products", "events", "queries", "judgments")
    }
    assert names == {
        "products": [
            "product_id", "title", "description", "title_zh", "description_zh", "category", "brand",
            "price", "in_stock", "image",
        ],
        "events": [
            "timestamp", "event_type", "product_id", "user_id", "session_id", "query_text",
            "query_image", "query_audio", "position", "dwell_seconds", "place",
        ],
        "queries": [
            "query_id", "text", "image", "audio", "history", "exclude", "slice", "intent",
            "language", "transcript",
        ],
        "judgments": ["query_id", "product_id", "grade"],
    }  # fmt: skip


def test_events_are_in_order_of_time_with_zone_and_known_products(shop: Path) -> None:
    known = {row["product_id"] for row in _rows(shop, "products", "product_id")}
    events = _rows(shop, "events")
    moments = [datetime.fromisoformat(event["timestamp"]) for event in events]
    assert all(moment.tzinfo is not None for moment in moments)
    assert moments == sorted(moments)
    assert 35 < (moments[-1] - moments[0]).days <= 43
    assert {event["product_id"] for event in events} <= known
    assert {e["event_type"] for e in events} == {"impression", "click", "cart", "purchase"}
    assert all(event["user_id"] or event["session_id"] for event in events)


def test_media_stand_on_positive_events_only_and_every_form_of_query_is_there(shop: Path) -> None:
    forms: Counter[tuple[bool, bool, bool]] = Counter()
    for event in _rows(shop, "events"):
        media = event["query_image"] is not None, event["query_audio"] is not None
        if event["event_type"] == "impression":
            assert media == (False, False)
        else:
            forms[event["query_text"] is not None, *media] += 1
    text, photo, voice = (True, False, False), (False, True, False), (False, False, True)
    for form in (text, photo, voice, (False, False, False), (True, True, False)):
        assert forms[form] > 0, form


def test_a_purchase_follows_a_cart_and_a_click_of_an_impression_of_its_session(shop: Path) -> None:
    seen: dict[str, set[tuple[str, str]]] = defaultdict(set)
    before = {"click": "impression", "cart": "click", "purchase": "cart"}
    for event in _rows(shop, "events", "event_type", "product_id", "session_id"):
        what = event["event_type"], event["product_id"]
        if event["event_type"] in before:
            assert (before[event["event_type"]], event["product_id"]) in seen[event["session_id"]]
        seen[event["session_id"]].add(what)


def test_the_same_product_photographed_twice_differs_but_less_than_two_products() -> None:
    catalogue = make_catalogue(3, 120)
    rng = np.random.default_rng(0)
    same, other = [], []
    for product in range(40):
        first, second = (_pixels(catalogue_photo(catalogue.looks[product], rng)) for _ in range(2))
        another = _pixels(catalogue_photo(catalogue.looks[product + 40], rng))
        same.append(np.abs(first - second).mean())
        other.append(np.abs(first - another).mean())
        assert np.abs(first - _pixels(shopper_photo(catalogue.looks[product], rng))).mean() > 5
    assert min(same) > 1
    assert np.mean(same) < 0.6 * np.mean(other)


def test_every_photo_in_the_tables_is_a_small_jpeg(shop: Path) -> None:
    photos = [row["image"] for row in _rows(shop, "products", "image")]
    photos += [row["image"] for row in _rows(shop, "queries", "image") if row["image"]]
    for photo in photos:
        image = Image.open(io.BytesIO(photo))
        assert (image.format, image.size, image.mode) == ("JPEG", (96, 96), "RGB")
        assert len(photo) < 8_000


def test_unheard_voices_never_speak_in_the_log() -> None:
    catalogue = make_catalogue(5, 100)
    log = simulate(catalogue, make_shoppers(5, 30, catalogue), sessions=600, seed=5, voices=True)
    spoken = {utterance.voice for utterance in log.utterances}
    heard = {voice for names in voices.HEARD.values() for voice in names}
    assert len(spoken) >= 10
    assert spoken <= heard
    assert all(len(names) >= 4 for names in voices.UNHEARD.values())
    variants = {voice.partition("+")[2] for voice in heard}
    for names in voices.UNHEARD.values():
        assert not variants & {voice.partition("+")[2] for voice in names}


def test_every_voice_sounds_different_and_says_what_it_is_told() -> None:
    pytest.importorskip("espeakng_loader")
    soundfile = pytest.importorskip("soundfile")
    texts = {"en": ("red lamp", "striped velvet sofa in red"), "zh": ("红灯", "红色条纹丝绒长沙发")}
    utterances = [
        voices.Utterance(text, voice, 170, 50, 1, "WAV")
        for language, (short, long) in texts.items()
        for voice in (*voices.HEARD[language], *voices.UNHEARD[language])
        for text in (short, long)
    ]
    sounds = [soundfile.read(io.BytesIO(sound)) for sound in voices.record(utterances, processes=2)]
    assert {rate for _, rate in sounds} == {voices.SAMPLE_RATE_HZ}
    waves = [wave for wave, _ in sounds]
    assert len({wave.tobytes() for wave in waves}) == len(waves)
    for short, long in zip(waves[::2], waves[1::2], strict=True):
        assert 0.3 < len(short) / voices.SAMPLE_RATE_HZ < 1.6
        assert len(long) > 1.6 * len(short)
    spelled_out = 3.0
    assert max(map(len, waves)) / voices.SAMPLE_RATE_HZ < spelled_out


def test_sounds_come_in_several_formats(shop: Path) -> None:
    sounds = {row["query_audio"] for row in _rows(shop, "events", "query_audio")} - {None}
    sounds |= {row["audio"] for row in _rows(shop, "queries", "audio")} - {None}
    assert {sound[:4] for sound in sounds} == {b"OggS", b"fLaC", b"RIFF"}


def test_an_ogg_stream_still_decodes_under_another_serial_number() -> None:
    soundfile = pytest.importorskip("soundfile")
    wave = (np.sin(np.arange(9000) / 7) * 9000).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 22_050, format="OGG", subtype="VORBIS")
    renamed = with_serial(buffer.getvalue(), 77)
    assert renamed[14:18] == (77).to_bytes(4, "little")
    assert with_serial(renamed, int.from_bytes(buffer.getvalue()[14:18], "little")) == (
        buffer.getvalue()
    )
    np.testing.assert_array_equal(
        soundfile.read(io.BytesIO(renamed))[0], soundfile.read(io.BytesIO(buffer.getvalue()))[0]
    )


def test_no_typo_of_the_test_set_is_in_the_log_and_each_is_one_or_two_edits_away() -> None:
    rng = np.random.default_rng(1)
    query = "velora crimson striped backpack"
    words = set(query.split())
    typos: dict[bool, set[str]] = {True: set(), False: set()}
    for reserved in typos:
        for _ in range(300):
            changed = set(misspell(query, rng, reserved=reserved).split()) - words
            assert len(changed) == 1
            typos[reserved] |= changed
    assert not typos[True] & typos[False]
    assert all(is_reserved(typo) for typo in typos[True])
    for typo in typos[True] | typos[False]:
        assert min(_edits(typo, word) for word in words) <= 4
    assert min(_edits("strpied", word) for word in words) == 2


def test_the_misspelt_queries_contain_a_word_that_the_log_never_has(shop: Path) -> None:
    logged = {
        word
        for row in _rows(shop, "events", "query_text")
        for word in (row["query_text"] or "").lower().split()
    }
    queries = _rows(shop, "queries", "intent", "slice", "language", "text")
    plain = {
        row["intent"]: set(row["text"].split())
        for row in queries
        if (row["slice"], row["language"]) == ("plain", "en")
    }
    misspelt = [row for row in queries if row["slice"] == "misspelling"]
    assert misspelt
    for row in misspelt:
        (typo,) = set(row["text"].split()) - plain[row["intent"]]
        assert typo not in logged
        assert is_reserved(typo)


def test_clicks_fall_with_position_beyond_what_relevance_explains() -> None:
    catalogue = make_catalogue(5, 400)
    log = simulate(catalogue, make_shoppers(5, 50, catalogue), sessions=2500, seed=5, voices=False)
    shown: Counter[tuple[int, bool]] = Counter()
    clicked: Counter[tuple[int, bool]] = Counter()
    kinds = {word.lower(): i for i, kind in enumerate(KINDS) for word in kind.en}
    for event in log.events:
        asked = {kinds[word] for word in kinds if re.search(rf"\b{word}\b", event.text)}
        if not asked:
            continue
        cell = event.position, int(catalogue.kind[event.product]) in asked
        shown[cell] += event.event_type == "impression"
        clicked[cell] += event.event_type == "click"
    first, late = (
        sum(clicked[p, True] for p in ps) / sum(shown[p, True] for p in ps)
        for ps in ((0,), (3, 4, 5))
    )
    assert first > 1.5 * late
    assert EXAMINATION[0] == 1
    assert EXAMINATION[3] == pytest.approx(4**-0.7)


def _edits(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        row, left = [i], row
        for j, y in enumerate(b, start=1):
            row.append(min(left[j] + 1, row[-1] + 1, left[j - 1] + (x != y)))
    return row[-1]
