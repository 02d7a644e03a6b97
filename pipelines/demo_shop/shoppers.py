"""Shoppers and their log: six weeks of sessions with impressions, clicks, carts and purchases.

A session shows a page of ten products, ranked by the shop's present, noisy search. The shopper
looks at the first few, examines position p (from 0) with probability (1 + p)^-0.7 (the position
bias of click models: Joachims et al. 2017, "Unbiased learning-to-rank with biased feedback"), and
clicks on what was examined with a probability that grows with grade and taste.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.demo_shop.asking import appetite, ask_for, draw_taste, mix, say_for
from pipelines.demo_shop.catalogue import Catalogue, Numbers
from pipelines.demo_shop.judgments import Grades, Taste, grade_ask, grade_photo
from pipelines.demo_shop.language import (
    SHOPPER,
    SPEAKER,
    Language,
    ask_in_words,
    change_in_words,
    misspell,
)
from pipelines.demo_shop.voices import HEARD, Utterance, utterance
from pipelines.demo_shop.words import CATEGORIES, KINDS, PARTS_OF_DAY, PLACES

FIRST_DAY = datetime(2024, 1, 8)
DAYS = 42
PAGE = 10
EXAMINATION = (1 + np.arange(PAGE)) ** -0.7

_Form = Literal["text", "photo", "voice", "mixture", "none"]
_FORMS: tuple[_Form, ...] = ("text", "photo", "voice", "mixture", "none")
_FORM_SHARES = (0.3, 0.15, 0.32, 0.12, 0.11)
_CLICKS_BY_GRADE = {
    "words": np.array([0.015, 0.07, 0.24, 0.62]),
    "photo": np.array([0.01, 0.03, 0.1, 0.3, 0.9]),
}


@dataclass(frozen=True)
class Shopper:
    """A person: `wish` is `appetite` of the taste, [products]; `hour` is when they mostly shop."""

    user_id: str
    language: Language
    place: int
    hour: float
    taste: Taste
    wish: Numbers


@dataclass(frozen=True)
class Request:
    """What a session starts from; empty parts are absent. `grades` is None without a query."""

    text: str = ""
    photographed: int | None = None
    spoken: Utterance | None = None
    grades: Grades | None = None


@dataclass(frozen=True)
class Visit:
    """A session before anything is clicked.

    Attributes:
      session_id: As the table has it.
      shopper: Who came.
      anonymous: Whether the log knows who came.
      moment: When the page was shown, with the shopper's zone.
      request: What was asked for.
      page: Products in the order shown, [at most PAGE].
      attraction: Probability of a click on what is examined, for each product of the page.
    """

    session_id: str
    shopper: Shopper
    anonymous: bool
    moment: datetime
    request: Request
    page: NDArray[np.int64]
    attraction: Numbers


@dataclass(frozen=True)
class Event:
    """A line of the log; `photo` and `voice` count into the log's requests for media."""

    moment: datetime
    event_type: str
    product: int
    user_id: str | None
    session_id: str
    text: str
    photo: int | None
    voice: int | None
    position: int
    dwell_seconds: float | None
    place: str


@dataclass
class Log:
    """Events, and the media that are still to be made: (product, seed) and utterances."""

    events: list[Event] = field(default_factory=list)
    photos: list[tuple[int, int]] = field(default_factory=list)
    utterances: list[Utterance] = field(default_factory=list)


def make_shoppers(seed: int, count: int, catalogue: Catalogue) -> list[Shopper]:
    """Draws people with tastes, homes and languages."""
    shoppers = []
    for number in range(count):
        rng = np.random.default_rng([seed, 2, number])
        place = int(rng.integers(len(PLACES)))
        taste = draw_taste(rng)
        languages: tuple[Language, Language] = ("en", "zh")
        shoppers.append(
            Shopper(
                user_id=f"U{number + 1:05d}",
                language=languages[int(PLACES[place].language == "zh")],
                place=place,
                hour=float(rng.uniform(7, 22)),
                taste=taste,
                wish=appetite(catalogue, taste),
            )
        )
    return shoppers


def simulate(
    catalogue: Catalogue, shoppers: list[Shopper], *, sessions: int, seed: int, voices: bool
) -> Log:
    """Lets the shoppers shop.

    Args:
      catalogue: What there is.
      shoppers: Who comes.
      sessions: How often anybody comes.
      seed: Source of chance; each session has its own stream.
      voices: Whether anybody speaks; otherwise those who would have spoken type.
    """
    log = Log()
    activity = np.random.default_rng([seed, 3]).dirichlet(np.full(len(shoppers), 2.0)).cumsum()
    for number in range(sessions):
        rng = np.random.default_rng([seed, 4, number])
        shopper = shoppers[min(int(np.searchsorted(activity, rng.random())), len(shoppers) - 1)]
        request = _request(catalogue, shopper, rng, voices=voices)
        _shop(log, catalogue, _visit(catalogue, shopper, request, f"S{number + 1:06d}", rng), rng)
    log.events.sort(key=lambda event: (event.moment, event.session_id))
    return log


def _request(
    catalogue: Catalogue, shopper: Shopper, rng: np.random.Generator, *, voices: bool
) -> Request:
    form = _FORMS[int(rng.choice(len(_FORMS), p=_FORM_SHARES))]
    language: Language = shopper.language
    if rng.random() < 0.05:
        language = "zh" if language == "en" else "en"
    wanted = draw_wanted(shopper.wish, rng)
    match form:
        case "none":
            return Request()
        case "photo":
            return Request(photographed=wanted, grades=grade_photo(catalogue, wanted))
        case "mixture":
            mixture = mix(catalogue, wanted, rng)
            text = change_in_words(
                mixture.attribute, mixture.code, language=language, style=SHOPPER, rng=rng
            )
            grades = grade_ask(catalogue, mixture.ask)
            spoken = voices and rng.random() < 0.35
            return _worded(text, language, grades, rng, spoken=spoken, photo=mixture.photographed)
        case _:
            spoken = voices and form == "voice"
            ask = (say_for if form == "voice" else ask_for)(catalogue, wanted, rng)
            text = ask_in_words(ask, language, SPEAKER if spoken else SHOPPER, rng)
            if language == "en" and not spoken and rng.random() < 0.12:
                text = misspell(text, rng, reserved=False)
            return _worded(text, language, grade_ask(catalogue, ask), rng, spoken=spoken)


def _worded(
    text: str,
    language: Language,
    grades: Grades,
    rng: np.random.Generator,
    *,
    spoken: bool,
    photo: int | None = None,
) -> Request:
    if spoken:
        voice = utterance(text, HEARD[language], rng)
        return Request(spoken=voice, photographed=photo, grades=grades)
    return Request(text=text, photographed=photo, grades=grades)


def draw_wanted(wish: Numbers, rng: np.random.Generator) -> int:
    """A product that somebody with this wish might come for."""
    weights = np.exp(wish).cumsum()
    return min(int(np.searchsorted(weights, rng.random() * weights[-1])), len(wish) - 1)


def _moment(shopper: Shopper, rng: np.random.Generator) -> datetime:
    zone = timezone(timedelta(hours=PLACES[shopper.place].utc_offset_hours))
    hour = rng.normal(shopper.hour, 2.5) % 24
    after = timedelta(days=int(rng.integers(DAYS)), seconds=round(hour * 3600))
    return FIRST_DAY.replace(tzinfo=zone) + after


def context_factor(catalogue: Catalogue, place: int, hour: int) -> Numbers:
    """How much more each product attracts at a local hour and place, 1 or more, [products]."""
    categories = [hour in PARTS_OF_DAY[category] for category in CATEGORIES]
    favoured = [kind.family in PLACES[place].favours for kind in KINDS]
    timely = [categories[CATEGORIES.index(kind.category)] for kind in KINDS]
    by_kind = 1 + 1.0 * np.array(favoured) + 1.0 * np.array(timely)
    factor: Numbers = by_kind[catalogue.kind]
    return factor


def _visit(
    catalogue: Catalogue,
    shopper: Shopper,
    request: Request,
    session_id: str,
    rng: np.random.Generator,
) -> Visit:
    moment = _moment(shopper, rng)
    score = 0.15 * catalogue.popularity - 0.8 * ~catalogue.in_stock
    if request.grades is None:
        factor = context_factor(catalogue, shopper.place, moment.hour)
        score += 0.8 * shopper.wish + 0.9 * rng.standard_normal(len(catalogue))
        attraction = 0.6 * np.exp(np.minimum(shopper.wish - 4.2, 0.5)) * factor
    else:
        score += request.grades + 0.15 * shopper.wish + 0.6 * rng.standard_normal(len(catalogue))
        by_grade = _CLICKS_BY_GRADE["photo" if request.grades.max() == 4 else "words"]
        attraction = by_grade[request.grades] * np.exp(0.25 * (shopper.wish - 2.5))
    shown = np.argpartition(-score, min(PAGE, len(score) - 1))[:PAGE]
    page = shown[np.argsort(-score[shown])]
    return Visit(
        session_id=session_id,
        shopper=shopper,
        anonymous=bool(rng.random() < 0.08),
        moment=moment,
        request=request,
        page=page,
        attraction=np.minimum(attraction[page], 0.95),
    )


def _shop(log: Log, catalogue: Catalogue, visit: Visit, rng: np.random.Generator) -> None:
    seen = min(int(1 + rng.geometric(0.28)), len(visit.page))
    examined = rng.random(seen) < EXAMINATION[:seen]
    clicked = examined & (rng.random(seen) < visit.attraction[:seen])
    log.events += [_impression(visit, position) for position in range(seen)]
    if not clicked.any():
        return
    photo = voice = None
    if visit.request.photographed is not None:
        photo = len(log.photos)
        log.photos.append((visit.request.photographed, int(rng.integers(2**31))))
    if visit.request.spoken is not None:
        voice = len(log.utterances)
        log.utterances.append(visit.request.spoken)
    moment = visit.moment
    for position in np.flatnonzero(clicked):
        moment += timedelta(seconds=int(rng.integers(2, 20)))
        pleased = float(visit.attraction[position])
        dwell = round(float(rng.lognormal(2.4 + 1.6 * pleased, 0.6)), 1)
        line = replace(_impression(visit, int(position)), photo=photo, voice=voice)
        log.events.append(replace(line, moment=moment, event_type="click", dwell_seconds=dwell))
        moment += timedelta(seconds=round(dwell))
        if not catalogue.in_stock[line.product] or rng.random() > 0.12 + 0.3 * pleased:
            continue
        log.events.append(replace(line, moment=moment, event_type="cart"))
        if rng.random() < 0.5:
            moment += timedelta(seconds=int(rng.integers(20, 200)))
            log.events.append(replace(line, moment=moment, event_type="purchase"))


def _impression(visit: Visit, position: int) -> Event:
    return Event(
        moment=visit.moment,
        event_type="impression",
        product=int(visit.page[position]),
        user_id=None if visit.anonymous else visit.shopper.user_id,
        session_id=visit.session_id,
        text=visit.request.text,
        photo=None,
        voice=None,
        position=position,
        dwell_seconds=None,
        place=PLACES[visit.shopper.place].name,
    )
