"""Search under rules: the best products among those that comply, whatever the index.

With an exact index the answer is exact. With another, wide rules fetch more hits than are wanted
and drop what does not comply; narrow ones, and rows that keep too few hits, are searched exactly,
those rows alone. Limits of hits a value are applied to a list that grows until it holds enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from tfmm.index.exact import (
    LOWEST,
    Hits,
    apart,
    as_read,
    in_chunks,
    keep_first,
    put,
    ranked,
    scan,
    table_of,
    to_width,
)
from tfmm.index.growing import rows_of
from tfmm.index.popular import PopularIndex
from tfmm.index.rules import Asked, Rules

# Of approximate search: rules that leave less of the catalogue are searched exactly, and so are
# rows that would have to fetch more.
_LEAST_SHARE = 0.1
_MOST_FETCHED = 2_048
_SPARE = 1.25
# Of exact search: rows whose rules leave less go one by one through their own products, and others
# all together through the catalogue, which is the better the more they are.
_FEW_OF_ONE, _FEW_OF_MANY, _MANY = 1 / 8, 1 / 64, 8
_ROWS_AT_ONCE = 256
# Limits a value: how many times as many hits are looked through, first and after each failure.
_WIDER = 4


_Search = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Hits]
_Comply = Callable[[tf.Tensor, tf.Tensor | int], tf.Tensor]


class Searched(Protocol):
    """What is asked of an index."""

    vectors: tf.Variable
    scale: tf.Variable | None

    def vectors_of(self, products: tf.Tensor) -> tf.Tensor:
        """Vectors float32 [..., D] of products int32 [...]."""

    def search(self, queries: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor) -> Hits:
        """Hits of each row, as `ExactIndex.search` gives them."""

    def is_exact(self) -> bool:
        """Whether they always are the true top k."""

    def is_dear(self, fetched: tf.Tensor) -> tf.Tensor:
        """Whether so many hits, int32 [R], cost a row of a batch more than an exact scan, bool."""


@dataclass(frozen=True)
class Rows:
    """Rows of a batch.

    Attributes:
      queries: float32 [R, D].
      k: int32 [R], how many hits they want.
      excluded: int32 [R, X], product indices, -1 for none.
      popular: bool [R], those that ask for nothing, and so for popular products.
      asked: Their rules, as `Rules.read` gives them; none where rules cannot be given.
    """

    queries: tf.Tensor
    k: tf.Tensor
    excluded: tf.Tensor
    popular: tf.Tensor
    asked: Asked

    def at(self, rows: tf.Tensor) -> Rows:
        """Some of them, int [S]."""
        asked = {name: tf.gather(value, rows) for name, value in self.asked.items()}
        queries, k = tf.gather(self.queries, rows), tf.gather(self.k, rows)
        excluded, popular = tf.gather(self.excluded, rows), tf.gather(self.popular, rows)
        return Rows(queries, k, excluded, popular, asked)

    def wanting(self, k: tf.Tensor) -> Rows:
        """The same rows with other numbers of hits."""
        return Rows(self.queries, k, self.excluded, self.popular, self.asked)


class RestrictedSearch:
    """Searches an index under rules, and the popular products for rows that ask for nothing.

    Args:
      index: The index.
      popular: The popular products, of the same catalogue.
      rules: The rules' columns, likewise.
    """

    def __init__(self, index: Searched, popular: PopularIndex, rules: Rules) -> None:
        self._index, self._popular, self._rules = index, popular, rules
        self._plain = _apart(self.without_rules)
        self._some_popular = _apart(self._with_popular)
        self._ruled, self._exactly = _apart(self._under_rules), _apart(self._exact)
        self._thinned = _apart(self._under_limits)

    def without_rules(self, rows: Rows) -> Hits:
        """The best products of each row that it does not exclude, as `search` gives them."""
        found = tf.cond(
            tf.reduce_any(rows.popular),
            lambda: self._some_popular(rows),
            lambda: ranked(self._index.search(rows.queries, rows.k, rows.excluded)),
        )
        return ranked(found)

    def _with_popular(self, rows: Rows) -> Hits:
        """The same, where some rows ask for popular products."""
        hits = _none(tf.shape(rows.k)[0], tf.reduce_max(rows.k))
        for search, some in (
            (self._index.search, ~rows.popular),
            (self._popular.search, rows.popular),
        ):

            def found(at: tf.Tensor, search: _Search = search) -> Hits:
                part = rows.at(at)
                return search(part.queries, part.k, part.excluded)

            hits = _put(hits, _where(some), found)
        return hits

    def search(self, rows: Rows) -> Hits:
        """The best products of each row that comply with its rules and that it does not exclude.

        A row without rules is searched as if the others were not there, and costs the same.

        Returns:
          Scores float32 [B, K], falling, and product indices int32 [B, K], K being the largest k.
          Where a row wants or has fewer than K hits, the rest is the lowest finite score and -1.
        """
        rules = self._rules
        restricted, capped = rules.restrict(rows.asked), rules.cap(rows.asked)
        hits = _none(tf.shape(rows.k)[0], tf.reduce_max(rows.k))
        hits = _put(hits, _where(~(restricted | capped)), lambda at: self._plain(rows.at(at)))
        hits = _put(hits, _where(restricted & ~capped), lambda at: self._ruled(rows.at(at)))
        return _put(hits, _where(capped), lambda at: self._thinned(rows.at(at)))

    def _under_rules(self, rows: Rows) -> Hits:
        """Hits of rows that have rules or none, without the limits a value."""
        if self._index.is_exact():
            return self._exactly(rows)
        share = self._rules.share(rows.asked)
        fetched = tf.cast(tf.math.ceil(_SPARE * tf.cast(rows.k, tf.float32) / share), tf.int32)
        free = tf.logical_not(self._rules.restrict(rows.asked))
        wide = (share >= _LEAST_SHARE) & (fetched <= _MOST_FETCHED)
        many = tf.shape(rows.k)[0] > _MANY
        wide = wide & ~(many & self._index.is_dear(fetched))
        hits = _none(tf.shape(rows.k)[0], tf.reduce_max(rows.k))
        hits = _put(hits, _where(free), lambda at: self._plain(rows.at(at)))
        hits = _put(
            hits,
            _where(wide & ~free),
            lambda at: self._dropped(rows.at(at), tf.gather(fetched, at)),
        )
        found = tf.math.count_nonzero(hits[1] >= 0, axis=1, dtype=tf.int32)
        short = (found < rows.k) & ~free
        return _put(hits, _where(short), lambda at: self._exactly(rows.at(at)))

    def _dropped(self, rows: Rows, fetched: tf.Tensor) -> Hits:
        """What complies of more hits than are wanted."""
        scores, indices = self._plain(rows.wanting(fetched))
        kept = self._rules.comply(rows.asked, indices)
        return keep_first(*_to_front((scores, indices), kept, tf.reduce_max(rows.k)), rows.k)

    def _exact(self, rows: Rows) -> Hits:
        count, width = tf.shape(rows.k)[0], tf.reduce_max(rows.k)

        def several() -> Hits:
            most = tf.where(count > _MANY, _FEW_OF_MANY, _FEW_OF_ONE)
            few = self._rules.share(rows.asked) < most
            hits = _none(count, width)
            hits = _put(hits, _where(few), lambda at: self._one_by_one(rows.at(at)))
            return _put(hits, _where(~few), lambda at: self._together(rows.at(at)))

        # Of one row what complies is counted, which costs less than an estimate beside it.
        return ranked(tf.cond(count == 1, lambda: self._one_by_one(rows), several))

    def _together(self, rows: Rows) -> Hits:
        """The catalogue scanned for some hundred rows at a time, masked by the rules of each."""

        def scanned(part: Rows) -> Hits:
            def comply(start: tf.Tensor, size: tf.Tensor | int) -> tf.Tensor:
                return self._rules.comply_between(part.asked, start, size)

            return self._scanned(part, width, comply)

        width = tf.reduce_max(rows.k)
        return _in_parts(scanned, rows, _ROWS_AT_ONCE)

    def _scanned(self, rows: Rows, width: tf.Tensor, comply: _Comply) -> Hits:
        """Hits of rows among the products that comply, all products scored."""

        def adjust(scores: tf.Tensor, start: tf.Tensor, size: tf.Tensor | int) -> tf.Tensor:
            share = tf.slice(self._popular.share, [start], [size])[tf.newaxis]
            scores = tf.cond(
                tf.reduce_any(rows.popular),
                lambda: tf.where(rows.popular[:, tf.newaxis], share, scores),
                lambda: scores,
            )
            complying = tf.where(comply(start, size), scores, LOWEST)
            return _without(complying, rows.excluded - start, LOWEST)

        table = table_of(self._index.vectors, self._index.scale)
        return keep_first(*scan(rows.queries, table, width, adjust), rows.k)

    def _one_by_one(self, rows: Rows) -> Hits:
        """Each row through the products that comply, and no others where these are few."""
        width, size = tf.reduce_max(rows.k), rows_of(self._index.vectors)

        def of_one(row: Rows) -> Hits:
            found = tf.broadcast_to(self._rules.comply_between(row.asked, 0, size), [1, size])
            found = _without(found, row.excluded, False)

            def part(start: tf.Tensor, size: tf.Tensor | int) -> tf.Tensor:
                return tf.slice(found, [0, start], [1, size])

            share = tf.reduce_mean(tf.cast(found, tf.float32))
            found_hits = tf.cond(
                share < _FEW_OF_ONE,
                lambda: self._listed(row, width, tf.cast(tf.where(found[0])[:, 0], tf.int32)),
                lambda: self._scanned(row, width, part),
            )
            return ranked(found_hits)

        return _in_parts(of_one, rows, 1)

    def _listed(self, row: Rows, width: tf.Tensor, among: tf.Tensor) -> Hits:
        """Hits of one row among some products, int32 [F]."""
        vectors = self._index.vectors_of(among)
        scores = tf.linalg.matmul(row.queries, vectors, transpose_b=True)
        share = tf.gather(as_read(self._popular.share), among)[tf.newaxis]
        scores = tf.where(row.popular[:, tf.newaxis], share, scores)
        best = tf.math.top_k(scores, tf.minimum(width, tf.size(among)))
        indices = tf.gather(among, best.indices)
        return keep_first(*to_width(best.values, indices, width), row.k)

    def _under_limits(self, rows: Rows) -> Hits:
        """Hits of rows that allow but so many a value."""
        width, size = tf.reduce_max(rows.k), rows_of(self._index.vectors)

        def attempt(rows: Rows, looked: tf.Tensor) -> tuple[Hits, tf.Tensor]:
            hits = self._ruled(rows.wanting(looked))
            kept = self._rules.thin(rows.asked, hits[1])
            there = tf.math.count_nonzero(hits[1] >= 0, axis=1, dtype=tf.int32)
            enough = tf.math.count_nonzero(kept, axis=1, dtype=tf.int32) >= rows.k
            settled = enough | (there < looked) | (looked >= size)
            return keep_first(*_to_front(hits, kept, width), rows.k), settled

        def step(looked: tf.Tensor, scores: tf.Tensor, indices: tf.Tensor, open_: tf.Tensor) -> Any:
            left = rows.at(open_)
            at_most = tf.minimum(looked * left.k, size)
            found, settled = attempt(left, at_most)
            hits = _put((scores, indices), open_, lambda _: found)
            return looked * _WIDER, *hits, tf.boolean_mask(open_, ~settled)

        count = tf.shape(rows.k)[0]
        start = (tf.constant(_WIDER), *_none(count, width), tf.range(count, dtype=tf.int64))
        shapes = tuple(tf.TensorShape(one) for one in ([], [None] * 2, [None] * 2, [None]))
        made = tf.while_loop(lambda *all_: tf.size(all_[3]) > 0, step, start, shapes)
        return made[1], made[2]


def _apart(search: Callable[[Rows], Hits]) -> Callable[[Rows], Hits]:
    """A search of rows that is called where it is needed, and not put in place."""
    function = apart(lambda *parts: search(Rows(*parts)))

    def call(rows: Rows) -> Hits:
        return function(rows.queries, rows.k, rows.excluded, rows.popular, dict(rows.asked))

    return call


def _where(rows: tf.Tensor) -> tf.Tensor:
    return tf.where(rows)[:, 0]


def _none(rows: tf.Tensor, width: tf.Tensor) -> Hits:
    shape = tf.stack([rows, width])
    return tf.fill(shape, LOWEST), tf.fill(shape, -1)


def _put(hits: Hits, rows: tf.Tensor, found: Callable[[tf.Tensor], Hits]) -> Hits:
    """Puts what is found for some rows, int64 [S], in their place; without rows it is not run."""

    def with_them() -> Hits:
        return put(hits, rows, to_width(*found(rows), tf.shape(hits[1])[1]))

    return ranked(tf.cond(tf.size(rows) > 0, with_them, lambda: hits))


def _to_front(hits: Hits, kept: tf.Tensor, width: tf.Tensor) -> Hits:
    """The kept hits in their order, [R, width]."""
    scores, indices = tf.where(kept, hits[0], LOWEST), tf.where(kept, hits[1], -1)
    order = tf.argsort(tf.cast(~kept, tf.int32), axis=1, stable=True)
    scores = tf.gather(scores, order, batch_dims=1)
    return to_width(scores, tf.gather(indices, order, batch_dims=1), width)


def _without(values: tf.Tensor, excluded: tf.Tensor, blank: float | bool) -> tf.Tensor:
    """Values [R, C], blank at the places int32 [R, X]; places outside are ignored."""
    here = tf.where((excluded >= 0) & (excluded < tf.shape(values)[1]))

    def blanked() -> tf.Tensor:
        at = tf.stack([tf.cast(here[:, 0], tf.int32), tf.gather_nd(excluded, here)], axis=1)
        return tf.tensor_scatter_nd_update(values, at, tf.fill(tf.shape(at)[:1], blank))

    return tf.ensure_shape(tf.cond(tf.size(here) > 0, blanked, lambda: values), [None, None])


def _in_parts(search: Callable[[Rows], Hits], rows: Rows, size: int) -> Hits:
    """Searches so many rows at a time."""
    return in_chunks(
        lambda start, stop: search(rows.at(tf.range(start, stop))), tf.shape(rows.k)[0], size
    )
