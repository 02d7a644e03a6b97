"""The one list of encoders, fusions and sides that the conformance tests of towers go through."""

import functools
import tempfile
from pathlib import Path
from typing import Any, get_args

import hub_miniatures
import numpy as np
import tensorflow as tf

from tfmm.config import AudioConfig, Config, Fusion, ImageConfig, TextConfig, TowerConfig
from tfmm.towers import hub
from tfmm.towers.encoders import Encoder, make_encoder
from tfmm.towers.joint import Side
from tfmm.towers.tower import Tower

ENCODERS = {
    "small_text": "text",
    "bert": "text",
    "small_image": "image",
    "feature_vector": "image",
    "small_audio": "audio",
    "yamnet": "audio",
}
FUSIONS = get_args(Fusion)
SIDES: tuple[Side, ...] = get_args(Side)
CASES = [(e, f, s) for e in ENCODERS for f in FUSIONS for s in SIDES]
# Gradients cost a second a case: every encoder meets every fusion, and the sides take turns.
TURNS = [case for number, case in enumerate(CASES) if number % 2 == number // 2 % 2]
# Saving costs more: every encoder, fusion and side is there, not every combination.
SAVED = [(e, f, s) for e, f, s in CASES if (f, s) == ("weighted", "query")]
SAVED += [(e, f, s) for e, f, s in CASES if (e, s) == ("small_image", "product")]

BATCH, DIM, TOKENS, MEL, SAMPLES = 4, 6, 5, 6, 1600
# Of the four rows, 0 and 2 have the modality under test, 1 and 2 have the other one, 3 has none.
ROWS, OTHER_ROWS = (0, 2), (1, 2)


def config(encoder: str, fusion: Fusion, *, trainable: bool = True) -> Config:
    """A recipe with one encoder under test and, beside it, a small one of another modality."""
    modality = ENCODERS[encoder]
    sides: Any = (modality, other(encoder))
    return Config(
        text=TextConfig(
            width=8,
            ngram_buckets=20,
            trainable=trainable,
            max_query_tokens=TOKENS,
            max_product_tokens=TOKENS,
            preprocessing="some" if encoder == "bert" else "",
        ),
        image=ImageConfig(width=8, channels=(4, 8), height_px=12, width_px=10, trainable=trainable),
        audio=AudioConfig(
            width=8,
            channels=8,
            mel_bins=MEL,
            seconds=0.1,
            hop_ms=10.0,
            trainable=trainable,
            front="waveform" if encoder == "yamnet" else "log_mel",
        ),
        tower=TowerConfig(
            dim=DIM, width=8, fusion=fusion, query=(*sides, "history"), product=sides
        ),
    )


def other(encoder: str) -> str:
    """The modality that stands beside the one under test."""
    return "image" if ENCODERS[encoder] == "text" else "text"


@functools.cache
def handle(encoder: str) -> str:
    """The folder of the module under test, written once a test process."""
    path = Path(tempfile.mkdtemp(prefix="tfmm-hub-")) / encoder
    match encoder:
        case "small_text":
            hub.build_text_module(path, vocabulary_size=30, width=8, ngram_buckets=20, seed=0)
        case "small_image":
            hub.build_image_module(path, channels=(4, 8), width=8, seed=0)
        case "small_audio":
            hub.build_audio_module(path, mel_bins=MEL, channels=8, width=8, seed=0)
        case "bert":
            hub_miniatures.save(hub_miniatures.Bert(), path)
        case "feature_vector":
            hub_miniatures.save(hub_miniatures.FeatureVector(), path)
        case _:
            hub_miniatures.save(hub_miniatures.Yamnet(), path)
    return str(path)


@functools.cache
def encoder(name: str, *, trainable: bool = True) -> Encoder:
    """A loaded encoder, once a test process."""
    recipe = config(name, "weighted", trainable=trainable)
    return make_encoder(ENCODERS[name], recipe, handle=handle(name))


@functools.cache
def tower(name: str, fusion: Fusion, side: Side, *, trainable: bool = True) -> Tower:
    """A tower whose head and fusion have moved away from where they start."""
    beside = other(name)
    encoders = {
        ENCODERS[name]: encoder(name, trainable=trainable),
        beside: encoder(f"small_{beside}", trainable=trainable),
    }
    made = Tower(side, config(name, fusion, trainable=trainable), encoders)
    random = np.random.default_rng(5)
    for variable in made.joint.trainable_variables:
        variable.assign_add(random.normal(size=variable.shape, scale=0.1).astype(np.float32))
    return made


def features(name: str, side: Side, *, seed: int = 0) -> dict[str, tf.Tensor]:
    """Packed features of four rows; see `ROWS`."""
    random = np.random.default_rng(seed)
    made = {"row": np.arange(BATCH, dtype=np.int32)}
    beside = f"small_{other(name)}"
    for encoder_name, rows in ((name, ROWS), (beside, OTHER_ROWS)):
        modality = ENCODERS[encoder_name]
        made[f"{modality}/row"] = np.array(rows, dtype=np.int32)
        made |= {f"{modality}/{k}": v for k, v in _raw(encoder_name, len(rows), random).items()}
    if side == "query":
        made["history/items"] = random.normal(size=(BATCH, 3, DIM)).astype(np.float32)
        known = [[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
        made["history/known"] = np.array(known, dtype=np.float32)
    return {name: tf.constant(value) for name, value in made.items()}


def _raw(name: str, rows: int, random: np.random.Generator) -> dict[str, Any]:
    def integers(low: int, high: int, *shape: int) -> Any:
        return random.integers(low, high, (rows, *shape)).astype(np.int32)

    match name:
        case "small_text":
            return {"ids": integers(1, 30, TOKENS), "ngrams": integers(1, 20, 2 * TOKENS)}
        case "bert":
            ids = integers(1, 50, TOKENS)
            values = (ids, np.ones_like(ids), np.zeros_like(ids))
            return dict(zip(hub.BERT_INPUTS, values, strict=True))
        case "small_image" | "feature_vector":
            return {"pixels": integers(0, 256, 12, 10, 3).astype(np.uint8)}
        case "small_audio":
            return {"log_mel": random.normal(size=(rows, 10, MEL)).astype(np.float32)}
        case _:
            return {"waveform": random.normal(size=(rows, SAMPLES)).astype(np.float32)}


def take_row(packed: dict[str, tf.Tensor], row: int) -> dict[str, tf.Tensor]:
    """The same features of one row alone, as the Preprocessor would pack them."""
    alone = {"row": tf.constant([0])}
    for name, value in packed.items():
        modality, _, feature = name.partition("/")
        if modality == "history":
            alone[name] = value[row : row + 1]
        elif feature:
            kept = tf.where(packed[f"{modality}/row"] == row)[:, 0]
            taken = tf.gather(value, kept)
            alone[name] = tf.zeros_like(taken) if feature == "row" else taken
    return alone
