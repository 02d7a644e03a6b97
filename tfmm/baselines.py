"""What a shop has without a model, ranked over the same catalogue. NumPy only.

Each baseline ranks product indices for one query, best first; fewer than asked where it has no
opinion about the rest. N is the number of products.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tfmm.heldout import Log, Query

Indices = npt.NDArray[np.int64]
Rankings = Sequence[Sequence[int]]
"""Product indices, best first, once for every draw of a system that draws."""

SYSTEMS = ("popularity", "random", "bm25", "item_knn", "text_knn")
RANDOM_DRAWS = 10

_CJK = "\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_IS_CJK = re.compile(rf"[{_CJK}]")


def tokens(text: str) -> list[str]:
    """Words of a text, without case and accents; of Chinese, characters and pairs of them.

    Words are runs of letters and digits, as SQLite's unicode61 cuts them. A run of CJK characters
    gives its characters and its overlapping bigrams, since nothing marks words in it.
    """
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    folded = "".join(mark for mark in decomposed if not unicodedata.combining(mark))
    found: list[str] = []
    for run in _RUN.findall(unicodedata.normalize("NFC", folded)):
        if _IS_CJK.match(run):
            found += run
            found += [run[at : at + 2] for at in range(len(run) - 1)]
        else:
            found.append(run)
    return found


class Popularity:
    """Products by their number of positive events; those without any follow in catalogue order.

    Args:
      counts: Events of each product, [N].
    """

    def __init__(self, counts: npt.NDArray[np.int64]) -> None:
        self._order: Indices = np.argsort(-counts, kind="stable")

    def rank(self, k: int, *, excluded: Sequence[int] = ()) -> Indices:
        """The k most popular products that are not excluded."""
        head = self._order[: k + len(excluded)]
        return head[~np.isin(head, excluded)][:k]


class RandomOrder:
    """Products in an order drawn anew for each ranking, repeatable by seed."""

    def __init__(self, products: int, *, seed: int) -> None:
        self._products = products
        self._random = np.random.default_rng(seed)

    def rank(self, k: int, *, excluded: Sequence[int] = ()) -> Indices:
        """As many as k different products that are not excluded."""
        size = min(self._products, k + len(excluded))
        drawn = self._random.choice(self._products, size, replace=False)
        return drawn[~np.isin(drawn, excluded)][:k]


class BM25:
    """Okapi BM25 over whole product texts.

    Score of product d = sum over the query's tokens t of
    idf(t) tf (k1 + 1) / (tf + k1 (1 - b + b |d| / mean |d|)), with k1 = 1.2, b = 0.75
    (Robertson, Zaragoza, "The probabilistic relevance framework: BM25 and beyond", 2009, section
    3.3) and idf(t) = ln(1 + (N - df + .5) / (df + .5)), Lucene's, which no frequent word makes
    negative. Products that share no token with the query are not ranked.

    Args:
      texts: Text of each product, in catalogue order.
    """

    def __init__(self, texts: Iterable[str], *, k1: float = 1.2, b: float = 0.75) -> None:
        products: defaultdict[str, array[int]] = defaultdict(lambda: array("i"))
        frequencies: defaultdict[str, array[int]] = defaultdict(lambda: array("i"))
        lengths = array("i")
        for product, text in enumerate(texts):
            words = tokens(text)
            lengths.append(len(words))
            for word, frequency in Counter(words).items():
                products[word].append(product)
                frequencies[word].append(frequency)
        self._count = len(lengths)
        relative = np.array(lengths, np.float64) / max(sum(lengths) / max(self._count, 1), 1.0)
        norm = k1 * (1 - b + b * relative)
        self._postings: dict[str, tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]] = {}
        for word in list(products):
            rows = np.array(products.pop(word), np.int32)
            count = np.array(frequencies.pop(word), np.float64)
            idf = np.log1p((self._count - len(rows) + 0.5) / (len(rows) + 0.5))
            weight = idf * count * (k1 + 1) / (count + norm[rows])
            self._postings[word] = rows, weight.astype(np.float32)

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """Score of every product, [N]."""
        scores = np.zeros(self._count, np.float32)
        for word in tokens(query):
            if word in self._postings:
                rows, weight = self._postings[word]
                scores[rows] += weight
        return scores

    def rank(self, query: str, k: int, *, excluded: Sequence[int] = ()) -> Indices:
        """The k best products for a query; equal scores in catalogue order."""
        return _best(self.scores(query), k, excluded)


class ItemNeighbours:
    """Item-based nearest neighbours from a log: what shoppers took together.

    Similarity of two products = number of shoppers who took both / sqrt(shoppers of one x
    shoppers of the other), the cosine of their binary shopper vectors; a product's score is the
    sum over the products of the history (Deshpande, Karypis, "Item-based top-N recommendation
    algorithms", TOIS 2004). Similarities are worked out for the products that histories hold, from
    two sorted lists of the log, so that no [N, N] matrix is made.

    Args:
      shopper: Shopper of each event, [E].
      product: Product index of each event, [E].
      products: N.
    """

    def __init__(
        self, shopper: npt.NDArray[np.int32], product: npt.NDArray[np.int32], *, products: int
    ) -> None:
        pairs = np.unique(np.stack([shopper, product], axis=1).astype(np.int64), axis=0)
        _, rows = np.unique(pairs[:, 0], return_inverse=True)
        shopper_rows = rows.reshape(-1)
        self._count = products
        self._taken = pairs[:, 1]
        self._basket = _starts(shopper_rows, int(shopper_rows.max(initial=-1)) + 1)
        by_product = np.argsort(self._taken, kind="stable")
        self._shoppers = shopper_rows[by_product]
        self._audience = _starts(self._taken[by_product], products)
        self._norm = np.sqrt(np.maximum(np.diff(self._audience), 1))
        self._known: dict[int, tuple[Indices, npt.NDArray[np.float32]]] = {}

    def neighbours(self, product: int) -> tuple[Indices, npt.NDArray[np.float32]]:
        """Products taken together with one, itself left out, and their similarities."""
        if product not in self._known:
            audience = self._shoppers[self._audience[product] : self._audience[product + 1]]
            baskets = [self._taken[self._basket[who] : self._basket[who + 1]] for who in audience]
            others, together = np.unique(np.concatenate([*baskets, []]), return_counts=True)
            others = others.astype(np.int64)
            kept = others != product
            similarity = together / (self._norm[product] * self._norm[others])
            self._known[product] = others[kept], similarity[kept].astype(np.float32)
        return self._known[product]

    def rank(self, history: Iterable[int], k: int, *, excluded: Sequence[int] = ()) -> Indices:
        """The k nearest products to a history; products near to nothing in it are not ranked."""
        scores = np.zeros(self._count, np.float32)
        for product in set(history):
            others, similarity = self.neighbours(product)
            scores[others] += similarity
        return _best(scores, k, excluded)


class TextNeighbours:
    """Nearest neighbours of a history by words: what a shop without a log of a product can do.

    Similarity of two products = cosine of their TF-IDF, (1 + ln tf) ln(N / df) by token; a
    product's score is the sum over the products of the history. Products that share no token with
    it are not ranked.

    Args:
      texts: Text of each product, in catalogue order.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        numbers: dict[str, int] = {}
        word, count, sizes = array("i"), array("f"), array("q", [0])
        for text in texts:
            found = Counter(tokens(text))
            word.extend(numbers.setdefault(token, len(numbers)) for token in found)
            count.extend(found.values())
            sizes.append(len(found))
        self._bounds = np.cumsum(np.array(sizes, np.int64))
        self._count = len(sizes) - 1
        self._word = np.array(word, np.int32)
        product = np.repeat(np.arange(self._count, dtype=np.int32), sizes[1:])
        held = np.bincount(self._word, minlength=len(numbers))
        weight = (1 + np.log(np.array(count, np.float64))) * np.log(self._count / held)[self._word]
        norm = np.sqrt(np.bincount(product, weight**2, minlength=self._count))
        self._weight = (weight / np.maximum(norm, 1e-9)[product]).astype(np.float32)
        order = np.argsort(self._word, kind="stable")
        self._starts = np.append(0, np.cumsum(held))
        self._posted, self._posted_weight = product[order], self._weight[order]

    def rank(self, history: Iterable[int], k: int, *, excluded: Sequence[int] = ()) -> Indices:
        """The k products nearest to a history; those of the history are ranked too."""
        parts = [slice(self._bounds[one], self._bounds[one + 1]) for one in set(history)]
        none = np.zeros(0, np.float32)
        words = np.concatenate([none.astype(np.int32), *(self._word[part] for part in parts)])
        asked, which = np.unique(words, return_inverse=True)
        weight = np.bincount(
            which.reshape(-1), np.concatenate([none, *(self._weight[part] for part in parts)])
        )
        rows = [slice(self._starts[one], self._starts[one + 1]) for one in asked]
        products = np.concatenate([none.astype(np.int32), *(self._posted[row] for row in rows)])
        scores = np.concatenate(
            [none, *(w * self._posted_weight[r] for w, r in zip(weight, rows, strict=True))]
        )
        total = np.bincount(products, scores, minlength=self._count).astype(np.float32)
        return _best(total, k, excluded)


class Baselines:
    """The baselines that a dataset allows, over its own catalogue.

    Popularity and item_knn (what shoppers took together) need a log, bm25 and text_knn (histories
    by their words) texts; random order is always there, drawn several times so that its mean is
    close to its expectation.

    Args:
      index: Product index of each product id, [N].
      texts: Gives the text of each product, in catalogue order; read when words are needed.
      past: Positive events before the test.
      seed: Of the random order.
    """

    def __init__(
        self, index: Mapping[str, int], texts: Callable[[], Iterable[str]], past: Log, *, seed: int
    ) -> None:
        self.index = index
        self._has_log = len(past) > 0
        self._popularity = Popularity(np.bincount(past.product, minlength=len(index)))
        self._random = RandomOrder(len(index), seed=seed)
        self._texts = texts
        self._neighbours = ItemNeighbours(past.shopper, past.product, products=len(index))

    @cached_property
    def _words(self) -> BM25:
        return BM25(self._texts())

    @cached_property
    def _alike(self) -> TextNeighbours:
        return TextNeighbours(self._texts())

    def rankings(self, query: Query, k: int, *, draw_k: int | None = None) -> dict[str, Rankings]:
        """What each baseline that applies to a query ranks first, by system.

        Args:
          query: The query.
          k: Products wanted.
          draw_k: Products wanted of the second draw and those after it; k if None.
        """
        excluded = [self.index[item] for item in query.exclude if item in self.index]
        history = [self.index[item] for item in query.history if item in self.index]
        sizes = [k, *[k if draw_k is None else draw_k] * (RANDOM_DRAWS - 1)]
        draws = [self._random.rank(size, excluded=excluded).tolist() for size in sizes]
        found: dict[str, Rankings] = {"random": draws}
        if self._has_log:
            found["popularity"] = [self._popularity.rank(k, excluded=excluded).tolist()]
        if self._has_log and query.kind == "history":
            found["item_knn"] = [self._neighbours.rank(history, k, excluded=excluded).tolist()]
        if query.kind == "history":
            found["text_knn"] = [self._alike.rank(history, k, excluded=excluded).tolist()]
        if query.text:
            found["bm25"] = [self._words.rank(query.text, k, excluded=excluded).tolist()]
        return found


def _best(scores: npt.NDArray[np.float32], k: int, excluded: Sequence[int]) -> Indices:
    """Indices of the k largest scores above 0, the largest first, ties by index."""
    scores[list(excluded)] = 0
    candidates = np.flatnonzero(scores)
    if len(candidates) > k:
        threshold = np.partition(scores[candidates], -k)[-k]
        candidates = candidates[scores[candidates] >= threshold]
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]


def _starts(ordered: Indices, groups: int) -> Indices:
    """Where each group's run begins in sorted group numbers, with the end, [groups + 1]."""
    return np.searchsorted(ordered, np.arange(groups + 1))
