"""The test set: the same intents in words, synonyms, typos, Chinese, speech, photos and mixtures.

An intent `want-N` is a kind with attributes that some product has, and a photo of that product is
judged by the rule of photos. An intent `say-N` is a kind with a colour or a pattern; the same words
are typed and spoken. An intent `mix-N` is a photo
with words that change one attribute; its parts alone are queries too, all judged by what both ask
together. An intent `taste-N` is the past of a shopper who is not in the log; the past itself is
excluded from the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipelines.demo_shop.asking import appetite, ask_for, draw_taste, mix, say_for
from pipelines.demo_shop.catalogue import Catalogue
from pipelines.demo_shop.judgments import Grades, grade_ask, grade_photo, grade_taste
from pipelines.demo_shop.language import (
    PLAIN,
    SYNONYM,
    Language,
    ask_in_words,
    change_in_words,
    misspell,
)
from pipelines.demo_shop.shoppers import draw_wanted
from pipelines.demo_shop.voices import HEARD, UNHEARD, Utterance, utterance


@dataclass(frozen=True)
class Photograph:
    """A photo to be taken: of which product, and the seed of its view."""

    product: int
    seed: int


@dataclass(frozen=True)
class Query:
    """A line of the test set with its judgments; what is absent is empty.

    Attributes:
      name: What is particular to it within its intent.
      intent: Shared by queries that ask for the same thing.
      slice: Sub-kind, as the `slice` column has it.
      grades: Grade of every product, [products].
      language: "en", "zh", or "" where nobody says anything.
      text: Typed words.
      photo: A photo.
      spoken: Spoken words.
      history: Products, oldest first.
    """

    name: str
    intent: str
    slice: str
    grades: Grades
    language: Language | str = ""
    text: str = ""
    photo: Photograph | None = None
    spoken: Utterance | None = None
    history: tuple[int, ...] = ()


def make_queries(catalogue: Catalogue, *, intents: int, seed: int, voices: bool) -> list[Query]:
    """Draws `intents` intents of each of the four sorts, and all their queries."""
    queries: list[Query] = []
    for number in range(intents):
        rng = np.random.default_rng([seed, 6, number])
        queries += _wants(catalogue, number, rng)
        queries += _sayings(catalogue, number, np.random.default_rng([seed, 7, number]))
        queries += _mixes(catalogue, number, rng)
        queries.append(_taste(catalogue, number, rng))
    return [query for query in queries if voices or query.spoken is None]


def _wants(catalogue: Catalogue, number: int, rng: np.random.Generator) -> Iterator[Query]:
    product = int(rng.integers(len(catalogue)))
    ask, intent = ask_for(catalogue, product, rng), f"want-{number + 1:04d}"
    grades = grade_ask(catalogue, ask)
    for language in _LANGUAGES:
        plain = Query(f"text-{language}", intent, "plain", grades, language)
        plain = replace(plain, text=ask_in_words(ask, language, PLAIN, rng))
        yield plain
        yield replace(
            plain,
            name=f"synonym-{language}",
            slice="synonym",
            text=ask_in_words(ask, language, SYNONYM, rng),
        )
        typo = misspell(plain.text, rng, reserved=True) if language == "en" else plain.text
        if typo != plain.text:
            yield replace(plain, name="misspelling", slice="misspelling", text=typo)
    photo = _photograph(product, rng)
    yield Query("photo", intent, "photo", grade_photo(catalogue, product), photo=photo)


def _sayings(catalogue: Catalogue, number: int, rng: np.random.Generator) -> Iterator[Query]:
    ask = say_for(catalogue, int(rng.integers(len(catalogue))), rng)
    intent, grades = f"say-{number + 1:04d}", grade_ask(catalogue, ask)
    for language in _LANGUAGES:
        words = ask_in_words(ask, language, PLAIN, rng)
        typed = Query(f"text-{language}", intent, "words of a voice", grades, language, words)
        yield typed
        yield _spoken(typed, UNHEARD[language], f"unheard-{language}", "unheard voice", rng)
        if (language == "zh") == bool(number % 2):
            yield _spoken(typed, HEARD[language], f"heard-{language}", "heard voice", rng)


def _mixes(catalogue: Catalogue, number: int, rng: np.random.Generator) -> Iterator[Query]:
    mixture = mix(catalogue, int(rng.integers(len(catalogue))), rng)
    language = _LANGUAGES[number % 2]
    text = change_in_words(mixture.attribute, mixture.code, language=language, style=PLAIN, rng=rng)
    photo = _photograph(mixture.photographed, rng)
    words = Query(
        "words",
        f"mix-{number + 1:04d}",
        "words of a mixture",
        grade_ask(catalogue, mixture.ask),
        language,
        text,
    )
    yield words
    yield replace(
        words, name="photo", slice="photo of a mixture", language="", text="", photo=photo
    )
    yield replace(words, name="photo-words", slice="photo and words", photo=photo)
    if number // 2 % 2 == 0:
        voice = _spoken(words, UNHEARD[language], "voice", "voice of a mixture", rng)
        yield voice
        yield replace(voice, name="photo-voice", slice="photo and voice", photo=photo)


def _taste(catalogue: Catalogue, number: int, rng: np.random.Generator) -> Query:
    taste = draw_taste(rng)
    wish = appetite(catalogue, taste)
    wish = np.where(np.isin(catalogue.kind, taste.kinds), wish, wish - 1.5)
    past: list[int] = []
    for _ in range(int(rng.integers(6, 13))):
        wanted = draw_wanted(wish, rng)
        if wanted not in past:
            past.append(wanted)
    grades = grade_taste(catalogue, taste, past)
    return Query("history", f"taste-{number + 1:04d}", "history", grades, history=tuple(past))


def _spoken(
    query: Query, voices: tuple[str, ...], name: str, of_slice: str, rng: np.random.Generator
) -> Query:
    spoken = utterance(query.text, voices, rng)
    return replace(query, name=name, slice=of_slice, text="", spoken=spoken)


def _photograph(product: int, rng: np.random.Generator) -> Photograph:
    return Photograph(product, int(rng.integers(2**31)))


_LANGUAGES: tuple[Language, Language] = ("en", "zh")
