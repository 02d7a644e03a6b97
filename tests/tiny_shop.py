"""A shop of 24 products, small enough to train on inside a test."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLOURS = {
    "red": ("红色", (200, 30, 30)),
    "green": ("绿色", (30, 160, 40)),
    "blue": ("蓝色", (30, 40, 200)),
    "black": ("黑色", (20, 20, 20)),
}
KINDS = {
    "shirt": "衬衫",
    "lamp": "台灯",
    "mug": "杯子",
    "chair": "椅子",
    "boot": "靴子",
    "bag": "包",
}
SETTINGS = (
    'name="tiny"',
    'catalogue.text=["title","title_zh"]',
    "catalogue.history_length=4",
    "catalogue.exclude_length=3",
    "catalogue.facet_values=2",
    "catalogue.max_k=20",
    "text.vocabulary_size=300",
    "text.width=16",
    "text.ngram_buckets=512",
    "text.max_query_tokens=8",
    "text.max_product_tokens=16",
    "image.height_px=16",
    "image.width_px=16",
    "image.width=16",
    "image.channels=[8,16]",
    "audio.seconds=0.5",
    "audio.mel_bins=16",
    "audio.width=16",
    "audio.channels=16",
    "tower.dim=16",
    "tower.width=16",
    "tower.late.image=0.5",
    "tower.late.history=0.5",
    "affinity.text_width=8",
    "affinity.image_width=4",
    "affinity.id_width=4",
    'tower.product=["text","image","id","popularity"]',
    'history.encoder="attention"',
    "history.events=true",
    "history.ages=true",
    "train.uniform_negatives=16",
    "train.hard_negatives=2",
    "train.other_positives=2",
    "train.dwell_seconds=20",
    "train.repeat_cap=3",
    'train.position_bias="inverse_propensity"',
    "train.next_items=8",
    "train.batch_size=16",
    "train.epochs=2",
    "train.patience=0",
    "train.checkpoint_steps=5",
    "prepare.shards=2",
)


def photo(colour: tuple[int, int, int], shape: int) -> bytes:
    """A JPEG of 20x20: the kind is where the block of colour lies."""
    pixels = np.full((20, 20, 3), 235, dtype=np.uint8)
    top, left = divmod(shape, 3)
    pixels[top * 8 : top * 8 + 10, left * 5 : left * 5 + 9] = colour
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return file.getvalue()


def voice(number: int, seed: int) -> bytes:
    """A WAV of .4 s at 16 kHz: the product is the pitch."""
    random = np.random.default_rng(seed)
    time = np.arange(6400) / 16_000
    sound = np.sin(2 * np.pi * (200 + 60 * number) * time) + 0.05 * random.normal(size=6400)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((sound * 12_000).astype("<i2").tobytes())
    return file.getvalue()


def products() -> list[dict[str, object]]:
    """Every colour of every kind."""
    return [
        {
            "product_id": f"p{number:02d}",
            "title": f"{colour} {kind}",
            "title_zh": f"{COLOURS[colour][0]}{KINDS[kind]}",
            "description": f"a {kind} in {colour}",
            "category": kind,
            "brand": f"brand{number % 3}",
            "price": 5.0 + number,
            "in_stock": number % 5 != 0,
            "image": photo(COLOURS[colour][1], list(KINDS).index(kind)),
        }
        for number, (kind, colour) in enumerate((k, c) for k in KINDS for c in COLOURS)
    ]


def events(count: int = 240) -> list[dict[str, object]]:
    """Clicks after words, photos, voices and nothing, and what stood above them."""
    random = np.random.default_rng(0)
    catalogue = products()
    rows: list[dict[str, object]] = []
    for number in range(count):
        product = catalogue[int(random.integers(len(catalogue)))]
        row: dict[str, object] = {
            "timestamp": f"2026-01-{1 + number // 24:02d}T{number % 24:02d}:00:00+08:00",
            "event_type": ("click", "purchase", "impression")[number % 3],
            "product_id": product["product_id"],
            "user_id": f"u{number % 7}",
            "session_id": f"s{number}",
            "query_text": "",
            "query_image": None,
            "query_audio": None,
            "position": number % 10,
        }
        match number % 5:
            case 0:
                row["query_text"] = product["title"]
            case 1:
                row["query_text"] = product["title_zh"]
            case 2:
                row["query_image"] = product["image"]
            case 3:
                row["query_audio"] = voice(int(str(product["product_id"])[1:]), number)
        if row["event_type"] == "click":
            row["dwell_seconds"] = float(number % 50)
            above = catalogue[(number + 1) % len(catalogue)]
            shown = {"event_type": "impression", "product_id": above["product_id"]}
            place = {"position": number % 10 - 1, "query_image": None, "query_audio": None}
            rows += [row | shown | place | {"dwell_seconds": None}] if number % 10 else []
        rows.append(row)
    return rows


def queries() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Queries of each kind, and judgments: 2 for the product asked for, 1 for its kind."""
    asked: list[dict[str, object]] = []
    judged: list[dict[str, object]] = []
    catalogue = products()
    for number in range(0, 24, 3):
        product = catalogue[number]
        forms = {
            "en": {"text": product["title"]},
            "zh": {"text": product["title_zh"]},
            "photo": {"image": product["image"]},
            "voice": {"audio": voice(number, 999)},
            "mixed": {"text": product["title"], "image": product["image"]},
            "history": {"history": [product["product_id"]]},
        }
        for form, parts in forms.items():
            query_id = f"q{number}-{form}"
            blank = {"text": "", "image": None, "audio": None, "history": []}
            asked.append({"query_id": query_id, "intent": f"i{number}"} | blank | parts)
            for other in catalogue:
                if other["category"] == product["category"]:
                    grade = 2.0 if other is product else 1.0
                    row = {"query_id": query_id, "product_id": other["product_id"]}
                    judged.append(row | {"grade": grade})
    return asked, judged


def write(folder: Path) -> Path:
    """Writes the dataset folder."""
    folder.mkdir(parents=True, exist_ok=True)
    asked, judged = queries()
    tables = {"products": products(), "events": events(), "queries": asked, "judgments": judged}
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder
