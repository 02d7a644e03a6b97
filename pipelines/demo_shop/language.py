"""What the shop writes about products and what shoppers write and say, in English and Chinese."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np

from pipelines.demo_shop.catalogue import Catalogue
from pipelines.demo_shop.judgments import Ask
from pipelines.demo_shop.words import ATTRIBUTES, COLOURS, KINDS, PATTERNS, Notion

Language = Literal["en", "zh"]
Style = tuple[float, float, float]
"""How often the first, the second and the third word of a notion is taken."""

TITLE: Style = (0.62, 0.38, 0.0)
SHOPPER: Style = (0.6, 0.2, 0.2)
SPEAKER: Style = (0.84, 0.12, 0.04)
PLAIN: Style = (1.0, 0.0, 0.0)
SYNONYM: Style = (0.0, 0.35, 0.65)

_ADJECTIVES = {
    "en": ("new", "premium", "classic", "2024", "limited", "everyday", "original", "modern"),
    "zh": ("新款", "2024款", "高档", "经典", "正品", "简约", "网红", "ins风"),
}
_TAILS = {
    "en": ("free shipping", "gift idea", "sale", "best seller", "one size", "in stock"),
    "zh": ("包邮", "送礼", "特价", "热卖", "现货", "厂家直销"),
}
_OPENINGS = {
    "en": (
        "Made to last",
        "A favourite of our customers",
        "Designed with care",
        "Fresh this season",
    ),
    "zh": ("经久耐用", "店主推荐", "用心设计", "当季新品"),
}
_ENDINGS = {
    "en": ("Easy to clean.", "Ships within two days.", "A lovely present.", "Two-year guarantee."),
    "zh": ("易打理。", "两天内发货。", "送礼佳品。", "质保两年。"),
}
_NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj",
    "i": "uo", "j": "hk", "k": "jl", "l": "kp", "m": "n", "n": "bm", "o": "ip", "p": "ol",
    "q": "wa", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc",
    "y": "tu", "z": "xa",
}  # fmt: skip

_REAL_WORDS = frozenset(
    word.lower()
    for notions in (KINDS, *ATTRIBUTES.values())
    for notion in notions
    for phrase in notion.en
    for word in phrase.replace("-", " ").split()
)


def say(notion: Notion, language: Language, style: Style, rng: np.random.Generator) -> str:
    """A word for a notion."""
    words = notion.en if language == "en" else notion.zh
    return words[int(rng.choice(3, p=style))]


def title(
    catalogue: Catalogue,
    product: int,
    *,
    language: Language,
    hidden: set[str],
    rng: np.random.Generator,
) -> str:
    """A product's title; attributes in `hidden` are left out, others often are."""
    chances = {"brand": 0.75, "colour": 0.55, "pattern": 0.45, "material": 0.35}
    said = _mentioned(catalogue, product, chances, language=language, hidden=hidden, rng=rng)
    kind = say(KINDS[catalogue.kind[product]], language, TITLE, rng)
    lead = str(rng.choice(_ADJECTIVES[language])) if rng.random() < 0.5 else ""
    tail = str(rng.choice(_TAILS[language])) if rng.random() < 0.3 else ""
    order = ["brand", "lead", *rng.permutation(["colour", "pattern", "material"])]
    said["lead"] = lead
    words = [said[name] for name in order if said.get(name)]
    if language == "zh":
        return " ".join(filter(None, ["".join(words) + kind, tail]))
    text = " ".join([*words, kind])
    return text[0].upper() + text[1:] + (f" - {tail}" if tail else "")


def description(
    catalogue: Catalogue,
    product: int,
    *,
    language: Language,
    hidden: set[str],
    rng: np.random.Generator,
) -> str:
    """A product's description. It may name other kinds and colours, as shops do."""
    chances = {"colour": 0.35, "pattern": 0.3, "material": 0.55}
    said = _mentioned(catalogue, product, chances, language=language, hidden=hidden, rng=rng)
    kind = say(KINDS[catalogue.kind[product]], language, TITLE, rng)
    beside = say(KINDS[int(rng.integers(len(KINDS)))], language, TITLE, rng)
    also = say(COLOURS[int(rng.integers(len(COLOURS)))], language, TITLE, rng)
    opening, ending = str(rng.choice(_OPENINGS[language])), str(rng.choice(_ENDINGS[language]))
    pairs, other = rng.random() < 0.4, rng.random() < 0.25
    if language == "zh":
        look = "".join(f"{word}、" for word in said.values())[:-1]
        text = f"{opening}的{kind}，" + (f"{look}。" if look else "做工精细。")
        text += f"可搭配{beside}。" if pairs else ""
        return text + (f"另有{also}可选。" if other else "") + ending
    look = ", ".join(said.values())
    text = f"{opening}: {kind}" + (f", {look}. " if look else " for every day. ")
    text += f"Goes well with {beside}. " if pairs else ""
    return text + (f"Also sold in {also}. " if other else "") + ending


def _mentioned(
    catalogue: Catalogue,
    product: int,
    chances: dict[str, float],
    *,
    language: Language,
    hidden: set[str],
    rng: np.random.Generator,
) -> dict[str, str]:
    said = {}
    for name, chance in chances.items():
        notion = ATTRIBUTES[name][catalogue.attributes[name][product]]
        seldom = 0.25 if notion is PATTERNS[0] else 1.0  # few shops call a plain thing plain
        word = say(notion, language, TITLE, rng)
        if rng.random() < chance * seldom and name not in hidden:
            said[name] = word
    return said


def ask_in_words(ask: Ask, language: Language, style: Style, rng: np.random.Generator) -> str:
    """A query for a kind with attributes."""
    kind = say(KINDS[ask.kind], language, style, rng)
    words = {
        name: say(ATTRIBUTES[name][code], language, style, rng)
        for name, code in ask.attributes.items()
    }
    order = [n for n in ("brand", "colour", "pattern", "material") if n in words]
    form = float(rng.random())
    front = [words[name] for name in order]
    if language == "zh":
        if form < 0.2:
            return " ".join([kind, *front])
        return "".join(front) + ("的" if form > 0.75 else "") + kind
    if form < 0.12:
        return " ".join([kind, *front])
    if form < 0.24 and "colour" in words:
        front.remove(words["colour"])
        return " ".join([*front, kind, "in", words["colour"]])
    return " ".join([*front, kind])


def change_in_words(
    attribute: str, code: int, *, language: Language, style: Style, rng: np.random.Generator
) -> str:
    """The words that go with a photo: one attribute that the wanted product has."""
    word = say(ATTRIBUTES[attribute][code], language, style, rng)
    if language == "zh":
        forms = {
            "colour": ("{}的", "要{}的", "换成{}"),
            "pattern": ("{}的", "要{}的", "换成{}"),
            "material": ("{}的", "{}材质", "要{}做的"),
            "brand": ("{}的", "{}牌", "要{}的"),
        }
    else:
        forms = {
            "colour": ("in {}", "this in {}", "but {}"),
            "pattern": ("but {}", "{} instead", "this but {}"),
            "material": ("made of {}", "in {}", "but {}"),
            "brand": ("by {}", "from {}", "this by {}"),
        }
    return str(rng.choice(forms[attribute])).format(word)


def misspell(text: str, rng: np.random.Generator, *, reserved: bool) -> str:
    """Mistypes one word of an English query, with one edit or, in long words, sometimes two.

    Args:
      text: The query.
      rng: Source of chance.
      reserved: Typos are of two kinds that share no word. The test set takes the reserved ones,
        so that no typo in it was ever seen in the log.
    """
    words = text.split(" ")
    long_enough = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long_enough:
        return text
    at = int(rng.choice(long_enough))
    for _ in range(200):
        word = _edited(words[at].lower(), rng)
        if len(word) >= 7 and rng.random() < 0.3:
            word = _edited(word, rng)
        if word not in _REAL_WORDS and is_reserved(word) == reserved:
            words[at] = word
            return " ".join(words)
    return text


def is_reserved(typo: str) -> bool:
    """Whether a typo is kept for the test set."""
    return zlib.crc32(typo.lower().encode()) % 3 == 0


def _edited(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word) - 1))
    match int(rng.integers(4)):
        case 0:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case 1:
            return word[:at] + word[at + 1 :]
        case 2:
            return word[:at] + word[at] + word[at:]
        case _:
            near = _NEIGHBOURS.get(word[at], "e")
            return word[:at] + near[int(rng.integers(len(near)))] + word[at + 1 :]
