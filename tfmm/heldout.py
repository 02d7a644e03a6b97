"""From a prepared dataset to evaluation queries: judged ones, and ones made of held-out events."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tfmm.config import EvaluateConfig, SplitConfig
from tfmm.errors import TfmmError

Kind = Literal["text", "chinese", "photo", "voice", "mixture", "history", "empty"]
Shopper = Literal["", "new", "returning"]
KINDS: tuple[Kind, ...] = ("text", "chinese", "photo", "voice", "mixture", "history")
Grades = Mapping[str, Mapping[str, float]]
POSITIVE_TYPES = ("click", "cart", "purchase")
END_OF_TIME_US = 2**63 - 1

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_KANA_OR_HANGUL = re.compile(r"[\u3040-\u30ff\u1100-\u11ff\uac00-\ud7af]")
_LOG_COLUMNS = ("timestamp_us", "event_type", "product_id", "user_id", "session_id")
_QUERY_COLUMNS = ("query_text", "query_image", "query_audio")


class Prepared(Protocol):
    """What is read of `tfmm.records.tfrecord.PreparedData`."""

    def count(self, table: str) -> int:
        """Records of a table; 0 without it."""

    def schema(self, table: str) -> Mapping[str, Any]:
        """What each feature of a table holds."""

    def rows(self, table: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Records of a table."""


@dataclass(frozen=True)
class Query:
    """One evaluation query and its graded products.

    Attributes:
      grades: Grade of each product that is judged for it, or 1 for each held-out target.
      history: Product ids that the shopper looked at, oldest first.
      history_event: What happened to each of them, where it is known.
      history_age_s: Seconds since then, where it is known.
      exclude: Product ids that must not be in the answer, the most recent one last.
      slice: Name of the sub-kind, or "".
      intent: Queries that ask for the same thing share it; "" for none.
      language: Language of what is said or written, where the dataset names it.
      shopper: Whether the shopper of a held-out event was known before the period; "" of a judged
        query.
    """

    query_id: str
    grades: Mapping[str, float]
    text: str = ""
    image: bytes = b""
    audio: bytes = b""
    history: tuple[str, ...] = ()
    history_event: tuple[str, ...] = ()
    history_age_s: tuple[float, ...] = ()
    exclude: tuple[str, ...] = ()
    slice: str = ""
    intent: str = ""
    language: str = ""
    shopper: Shopper = ""

    @property
    def parts(self) -> tuple[Kind, ...]:
        """What the query holds, each part named as a query of it alone would be."""
        words: Kind = "chinese" if is_chinese(self.text) else "text"
        held: list[tuple[Kind, object]] = [
            (words, self.text),
            ("photo", self.image),
            ("voice", self.audio),
            ("history", self.history),
        ]
        return tuple(name for name, content in held if content)

    @property
    def kind(self) -> Kind:
        """Which row of the evaluation table the query belongs to."""
        match self.parts:
            case ():
                return "empty"
            case (only,):
                return only
            case _:
                return "mixture"


def is_chinese(text: str) -> bool:
    """Whether a text is written in Chinese: Han characters, and neither kana nor hangul."""
    return bool(_HAN.search(text)) and not _KANA_OR_HANGUL.search(text)


def split_instants(timestamps_us: npt.NDArray[np.int64], split: SplitConfig) -> tuple[int, int]:
    """First instants of the validation and of the test period.

    A date of the recipe wins over its fraction. The test takes the last `test_fraction` of the
    positive events; validation the last `validation_fraction` of those before the test. Events of
    one instant are never divided, so a coarse clock makes a period larger than its fraction.

    Args:
      timestamps_us: Times of the positive events, in any order.
      split: The recipe's split.

    Returns:
      (validation_from_us, test_from_us), microseconds since 1970, UTC.

    Raises:
      TfmmError: A date cannot be read, the periods are in the wrong order, or nothing is left to
        train on.
    """
    ordered = np.sort(timestamps_us)
    test = _instant(split.test_from, "split.test_from")
    if test is None:
        test = _last_share(ordered, split.test_fraction)
    validation = _instant(split.validation_from, "split.validation_from")
    if validation is None:
        before_test = ordered[ordered < test]
        validation = min(test, _last_share(before_test, split.validation_fraction))
    if validation > test:
        raise TfmmError(
            "split.validation_from: expected an instant that is not after the test's first,"
            f" received {_iso(validation)} and {_iso(test)}"
        )
    if len(ordered) and ordered[0] >= validation:
        raise TfmmError(
            "split: expected positive events before the validation period, which starts at"
            f" {_iso(validation)}; found the first at {_iso(int(ordered[0]))}"
        )
    return validation, test


@dataclass(frozen=True)
class Log:
    """Positive events in compact arrays, sorted by shopper, then time; E events.

    Attributes:
      shopper: Number of the shopper (user, else session), int32 [E].
      product: Product index, int32 [E].
      event_type: Position in `POSITIVE_TYPES`, int8 [E].
      time_us: Microseconds since 1970, UTC, int64 [E].
      names: The shopper of each number, as `event_queries` knows them.
    """

    shopper: npt.NDArray[np.int32]
    product: npt.NDArray[np.int32]
    event_type: npt.NDArray[np.int8]
    time_us: npt.NDArray[np.int64]
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.product)

    def before(self, instant_us: int) -> Log:
        """The events before an instant."""
        return self._take(self.time_us < instant_us)

    def shoppers_before(self, instant_us: int) -> frozenset[str]:
        """Names of the shoppers with a positive event before an instant."""
        known = np.unique(self.shopper[self.time_us < instant_us])
        return frozenset(self.names[number] for number in known)

    def of_types(self, event_types: Iterable[str]) -> npt.NDArray[np.bool_]:
        """Which events are of one of the types, [E]."""
        return np.isin(self.event_type, [POSITIVE_TYPES.index(name) for name in event_types])

    def _take(self, rows: npt.NDArray[np.bool_]) -> Log:
        kept = self.shopper[rows], self.product[rows], self.event_type[rows], self.time_us[rows]
        return Log(*kept, self.names)


def read_log(prepared: Prepared, product_index: Mapping[str, int]) -> Log:
    """Reads the positive events (click, cart, purchase) of a dataset, 17 bytes an event."""
    shoppers: dict[str, int] = {}
    shopper, product = array("i"), array("i")
    event_type, time_us = array("b"), array("q")
    for event in _events(prepared, _LOG_COLUMNS):
        if event["event_type"] in POSITIVE_TYPES:
            shopper.append(shoppers.setdefault(_shopper(event), len(shoppers)))
            product.append(product_index[event["product_id"]])
            event_type.append(POSITIVE_TYPES.index(event["event_type"]))
            time_us.append(event["timestamp_us"])
    times, who = np.array(time_us, np.int64), np.array(shopper, np.int32)
    order = np.lexsort((times, who))
    return Log(
        who[order],
        np.array(product, np.int32)[order],
        np.array(event_type, np.int8)[order],
        times[order],
        tuple(shoppers),
    )


@dataclass(frozen=True)
class HeldOut:
    """Queries, and how many there were that could not be one, by reason."""

    queries: list[Query]
    left_out: Mapping[str, int]


def user_queries(
    log: Log,
    product_ids: Sequence[str],
    *,
    from_us: int,
    until_us: int,
    config: EvaluateConfig,
    history_length: int,
) -> HeldOut:
    """One history query for each shopper who is active in [from_us, until_us).

    History: the last products of the events before `from_us`, of every positive type, repeats in a
    row taken once; their ages are those at `from_us`. Targets: the distinct products of the
    period's events of `target_types`; with `mask_seen` without those of earlier events of
    `seen_types`, which are excluded from the ranking too.

    Args:
      log: Positive events.
      product_ids: Id of each product index.
      from_us: Start of the period.
      until_us: End of the period.
      config: Which events make a product seen or a target.
      history_length: H.
    """
    in_period = (log.time_us >= from_us) & (log.time_us < until_us)
    is_target = in_period & log.of_types(config.target_types)
    is_seen = log.of_types(config.seen_types) & config.mask_seen
    queries: list[Query] = []
    left_out: Counter[str] = Counter()
    for who in np.unique(log.shopper[is_target]):
        start, end = np.searchsorted(log.shopper, [who, who + 1])
        split = start + int(np.searchsorted(log.time_us[start:end], from_us))
        if split == start:
            left_out["shoppers unseen before the period"] += 1
            continue
        past = log.product[start:split]
        seen = _in_order_of_last(past[is_seen[start:split]])
        targets = np.setdiff1d(log.product[split:end][is_target[split:end]], seen)
        if len(targets) == 0:
            left_out["shoppers without a new product in the period"] += 1
            continue
        changed = np.append(past[1:] != past[:-1], True)
        recent = start + np.flatnonzero(changed)[-history_length:]
        queries.append(
            Query(
                query_id=f"shopper {who}",
                grades={product_ids[target]: 1.0 for target in targets},
                history=tuple(product_ids[item] for item in log.product[recent]),
                history_event=tuple(POSITIVE_TYPES[code] for code in log.event_type[recent]),
                history_age_s=tuple(((from_us - log.time_us[recent]) / 1e6).tolist()),
                exclude=tuple(product_ids[item] for item in seen),
                shopper="returning",
            )
        )
    return HeldOut(queries, dict(left_out))


def event_queries(
    prepared: Prepared, *, from_us: int, until_us: int, known: Set[str] = frozenset()
) -> Iterator[Query]:
    """Yields one query for each positive event in [from_us, until_us) that carries one.

    The target is the product of the event. A click, a cart and a purchase of one product after
    the same query of the same shopper are one query. Media are not kept here.

    Args:
      prepared: The dataset.
      from_us: Start of the period.
      until_us: End of the period.
      known: Shoppers who are not new, from `Log.shoppers_before`.
    """
    met: set[bytes] = set()
    for event in _events(prepared, (*_LOG_COLUMNS, *_QUERY_COLUMNS)):
        if event["event_type"] not in POSITIVE_TYPES:
            continue
        content = tuple(event[name] for name in _QUERY_COLUMNS)
        if not any(content) or not from_us <= event["timestamp_us"] < until_us:
            continue
        shopper = _shopper(event)
        key = _digest(shopper, event["product_id"], *content)
        if key not in met:
            met.add(key)
            text, image, audio = content
            yield Query(
                f"event {len(met)}",
                {event["product_id"]: 1.0},
                text=text,
                image=image,
                audio=audio,
                shopper="returning" if shopper in known else "new",
            )


def read_grades(prepared: Prepared) -> Grades:
    """Reads the judgments: grade of each judged product, by query."""
    grades: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for judgment in prepared.rows("judgments"):
        grades[judgment["query_id"]][judgment["product_id"]] = judgment["grade"]
    return grades


def judged_queries(prepared: Prepared, grades: Grades | None = None) -> Iterator[Query]:
    """Yields the dataset's queries with their judgments, products to be excluded left out.

    Args:
      prepared: The dataset.
      grades: Its judgments, where they have been read already.
    """
    grades = read_grades(prepared) if grades is None else grades
    has_language = prepared.schema("queries").get("language") == "text"
    for row in prepared.rows("queries"):
        exclude = frozenset(row["exclude"])
        judged = grades.get(row["query_id"], {})
        yield Query(
            query_id=row["query_id"],
            grades={key: grade for key, grade in judged.items() if key not in exclude},
            text=row["text"],
            image=row["image"],
            audio=row["audio"],
            history=tuple(row["history"]),
            exclude=tuple(row["exclude"]),
            slice=row["slice"],
            intent=row["intent"],
            language=row["language"] if has_language else "",
        )


def _events(prepared: Prepared, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    return prepared.rows("events", columns) if prepared.count("events") else iter(())


def _in_order_of_last(products: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Distinct products, the one met last at the end."""
    _, from_end = np.unique(products[::-1], return_index=True)
    return products[::-1][np.sort(from_end)][::-1]


def _shopper(event: Mapping[str, Any]) -> str:
    return event["user_id"] or f"\0{event['session_id']}"


def _digest(*parts: str | bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def _instant(text: str, key: str) -> int | None:
    """Microseconds of an ISO 8601 instant, UTC unless it names a zone; None for ""."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise TfmmError(f"{key}: expected an ISO 8601 instant, received {text!r}") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def _last_share(ordered_us: npt.NDArray[np.int64], share: float) -> int:
    """First instant of the last `share` of sorted instants; the end of time for none of them."""
    kept = round(len(ordered_us) * share)
    if kept == 0:
        return END_OF_TIME_US
    return int(ordered_us[len(ordered_us) - kept])


def _iso(instant_us: int) -> str:
    if instant_us == END_OF_TIME_US:
        return "the end of time"
    return datetime.fromtimestamp(instant_us / 1_000_000, UTC).isoformat()
