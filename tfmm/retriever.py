"""The exported whole: preprocessor, towers, index and the signatures around them.

Signatures and their inputs (all optional; first dimension B, the batch; an input of one row stands
for all rows; H, X and M are `history_length`, `exclude_length` and `facet_values` of the recipe):

`serving_default`, also called `search`
  text, image, audio    string [B]     words; a photo's bytes; a sound's bytes (WAV)
  history               string [B, H]  product ids, oldest first, padded with "" on the left
  exclude               string [B, X]  product ids that must not be among the hits. Nothing else
                                       excludes: products of `history` may be hits
  k                     int32 [B]      hits a row wants, 1..max_k
  history_event         string [B, H]  what happened to each product of `history`: click, cart or
                                       purchase; anything else says that it is not known
  history_age_seconds   float [B, H]   how long before the query that was; negative: not known.
                                       Both change nothing unless the recipe's `history` reads them
  <facet>               string [B, M]  allowed values of a declared facet, none for all
  min_<range>, max_<range>  float [B]  bounds of a declared numeric column, themselves included; a
                                       product without a number is within none
  in_stock_only         bool [B]       whether hits must be in stock
  max_per_<facet>       int32 [B]      most hits that share a value, 0 for any number; a product
                                       without a value shares it with none
  Accepted and not used yet:
  hour                  int32 [B]      the shopper's local hour, -1 unknown
  place                 string [B]     where the shopper is
`search_text`, `search_image`, `search_audio`, `recommend`
  text; image; audio; history. One for each modality that the query tower has.
`similar`
  product_id string [B], exclude, k, and the facets, bounds and limits above. A product is not
  similar to itself.
`embed_query`
  text, image, audio, history, and of history_event and history_age_seconds what the recipe reads;
  gives `embedding` float32 [B, D], unit norm.
`embed_product`
  product_id, by which the training log may know it, the product's text columns, image, audio
  string [B]; gives `embedding` float32 [B, D], unit norm.

Beside the signatures stand `numbered["serving_default"]` and `numbered["similar"]`, functions for
whoever has loaded the SavedModel: the same inputs give `score` and `product` int32 [B, K], rows of
`columns` (-1 for none), and `similar` also `known` bool [B], whether the model has the product.

Ranked answers hold `product_id` string, `score` float32 and the recipe's returned columns, each
[B, K], K being the largest k of the batch. Rows with fewer hits are padded with product_id "", the
lowest finite score, and "" or -1 in the columns; -1 also stands where a product has no number, as
JSON has no NaN. The score is the cosine of query and product. A row that asks for nothing, or for
products that are all unknown, gets the popular products, scored by their popularity relative to
the most popular one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm import signatures as inputs
from tfmm.catalogue import NO_NUMBER, returned_values
from tfmm.config import MEDIA, Config, affinity_widths, late_parts, vector_dim
from tfmm.contract import SIGNATURE_OF, SMALL
from tfmm.errors import TfmmError
from tfmm.features.history import history_facts, known_items
from tfmm.features.preprocessor import Preprocessor
from tfmm.index.exact import LOWEST, Hits
from tfmm.index.growing import growing
from tfmm.index.popular import PopularIndex
from tfmm.index.restricted import RestrictedSearch, Rows, Searched
from tfmm.index.rules import Rules
from tfmm.signatures import Tensors, signature
from tfmm.towers.tower import affinity_part, fused_part

_ENDS = ("min", "max")


class Tower(Protocol):
    """What a retriever asks of a tower."""

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """All that the tower's answer depends on."""

    def __call__(self, features: Tensors) -> tf.Tensor:
        """Embeddings [B, D] of device features, unit norm."""


class Index(Searched, Protocol):
    """What a retriever asks of an index; see `index.exact.ExactIndex`."""

    def release(self) -> None:
        """Drops what the process keeps beside the variables."""


@dataclass(frozen=True)
class _Functions:
    """The signatures, and what several of them call, so that a SavedModel holds it once.

    Neither a dict nor a tf.Module, which would be tracked and its functions saved again as objects.
    """

    embed: Any
    find: Any
    find_ruled: Any
    rank: Any
    rank_ruled: Any
    signatures: dict[str, Any] = field(default_factory=dict)


class Retriever(tf.Module):
    """Answers queries with ranked products.

    Args:
      config: The recipe.
      preprocessor: The host half; its product ids are those of `products`.
      towers: The query's and the product's tower: device features to float32 [B, D].
      index: The products' embeddings.
      products: Arrays [N] by column: `product_id`, the recipe's returned columns, its facets and
        ranges, and `in_stock`.
      popularity: float32 [N], what the popular products are ordered by.
    """

    def __init__(
        self,
        config: Config,
        *,
        preprocessor: Preprocessor,
        towers: tuple[Tower, Tower],
        index: Index,
        products: Mapping[str, npt.NDArray[Any]],
        popularity: npt.NDArray[np.float32],
    ) -> None:
        super().__init__(name="retriever")
        self._config = config
        self._facts = tuple(history_facts(config.history).values())
        self.preprocessor = preprocessor
        self.index = index
        # Keras would save every layer's own functions beside the signatures, training included:
        # the towers are called, only their variables are saved.
        self._call_query, self._call_product = (tower.__call__ for tower in towers)
        shared = {v.ref(): v for tower in towers for v in tower.variables}
        self.weights = list(shared.values())
        self.columns = _columns(config, products)
        self.popular, self.rules = PopularIndex(popularity), Rules(config.catalogue, products)
        self._restricted = RestrictedSearch(index, self.popular, self.rules)
        self._functions = _Functions(
            embed=tf.function(self._embedded, autograph=False),
            find=tf.function(self._found, autograph=False),
            find_ruled=tf.function(self._found_under_rules, autograph=False),
            rank=tf.function(self._ranked, autograph=False),
            rank_ruled=tf.function(self._ranked_under_rules, autograph=False),
        )
        self._functions.signatures.update(self._build())
        self.numbered = self._build_numbered()

    def signatures(self) -> dict[str, Any]:
        """The tf.functions that `tf.saved_model.save` exports, by signature name."""
        return dict(self._functions.signatures)

    def save(self, folder: Path) -> None:
        """Writes a SavedModel."""
        tf.saved_model.save(
            self,
            str(folder),
            signatures=self.signatures(),
            options=tf.saved_model.SaveOptions(namespace_whitelist=["Scann"]),
        )

    def _build(self) -> dict[str, Any]:
        catalogue = self._config.catalogue
        read = self.preprocessor.modalities("query")
        media, history = inputs.media(), inputs.history(catalogue)
        search = signature(self._search, self._search_inputs())
        built = {"serving_default": search, "search": search}
        for modality, name in SIGNATURE_OF.items():
            if modality in read:
                one = next(each for each in (*media, history) if each.name == modality)
                built[name] = signature(self._search, [one])
        built["similar"] = signature(self._similar, self._similar_inputs())
        told = [one for one in inputs.context(catalogue) if one.name in self._facts]
        built["embed_query"] = signature(self._embed_query, [*media, history, *told])
        built["embed_product"] = signature(self._embed_product, self._product_inputs())
        return built

    def _build_numbered(self) -> dict[str, Any]:
        return {
            "serving_default": signature(self._search_numbers, self._search_inputs()),
            "similar": signature(self._similar_numbers, self._similar_inputs()),
        }

    def _search_inputs(self) -> list[inputs.Input]:
        catalogue = self._config.catalogue
        given = [*inputs.media(), inputs.history(catalogue), *inputs.context(catalogue)]
        return [*given, *self._limits()]

    def _similar_inputs(self) -> list[inputs.Input]:
        return [inputs.product_id(), *self._limits()]

    def _limits(self) -> list[inputs.Input]:
        catalogue = self._config.catalogue
        return [inputs.exclude(catalogue), *inputs.rules(catalogue), inputs.hits(catalogue)]

    def _product_inputs(self) -> list[inputs.Input]:
        read = self.preprocessor.modalities("product")
        columns = self._config.catalogue.text if "text" in read else ()
        media = [m for m in ("image", "audio") if m in read]
        return inputs.product(list(dict.fromkeys(["product_id", *columns, *media])))

    def _search(self, given: Tensors) -> Tensors:
        asked = self._asked(given)
        if "in_stock_only" not in given:
            return self._functions.rank(*asked)
        return self._functions.rank_ruled(*asked, self._rules(given))

    def _search_numbers(self, given: Tensors) -> Tensors:
        found = self._functions.find_ruled(*self._asked(given), self._rules(given))
        return {"score": found[0], "product": found[1]}

    def _asked(self, given: Tensors) -> tuple[tf.Tensor, ...]:
        """Embeddings [B, D], whether a row asks for anything, k, and excluded products [B, X]."""
        embedding, asked = self._embed(given)
        rows = tf.shape(embedding)[0]
        catalogue = self._config.catalogue
        usual = tf.fill([rows], catalogue.default_k)
        k = self._checked_k(given["k"]) if "k" in given else usual
        if "exclude" in given:
            excluded = self._excluded(given, rows)
        else:
            excluded = tf.fill([rows, catalogue.exclude_length], -1)
        itself = tf.fill([rows, 1], -1)
        return embedding, asked, k, tf.concat([excluded, itself], axis=1)

    def _excluded(self, given: Tensors, rows: tf.Tensor) -> tf.Tensor:
        numbers = self.preprocessor.lookup(given["exclude"])
        return inputs.repeated(numbers, inputs.exclude(self._config.catalogue), rows)

    def _similar(self, given: Tensors) -> Tensors:
        return self._functions.rank_ruled(*self._resembling(given), self._rules(given))

    def _similar_numbers(self, given: Tensors) -> Tensors:
        asked = self._resembling(given)
        found = self._functions.find_ruled(*asked, self._rules(given))
        return {"score": found[0], "product": found[1], "known": asked[1]}

    def _resembling(self, given: Tensors) -> tuple[tf.Tensor, ...]:
        """What `_asked` gives, for rows that name a product."""
        product = self.preprocessor.lookup(given["product_id"])
        vectors = self.index.vectors_of(tf.maximum(product, 0))
        excluded = self._excluded(given, tf.shape(product)[0])
        excluded = tf.concat([excluded, product[:, tf.newaxis]], axis=1)
        return vectors, product >= 0, self._checked_k(given["k"]), excluded

    def _rules(self, given: Tensors) -> Tensors:
        bounds = [f"{end}_{name}" for name in self._config.catalogue.ranges for end in _ENDS]
        checks = [inputs.refuse_nan(name, given[name]) for name in bounds]
        with tf.control_dependencies(checks):
            return self.rules.read({name: tf.identity(value) for name, value in given.items()})

    def _embed_query(self, given: Tensors) -> Tensors:
        return {"embedding": self._embed(given)[0]}

    def _embed_product(self, given: Tensors) -> Tensors:
        embedding = self._call_product(self.preprocessor.product(given))
        return {"embedding": tf.ensure_shape(embedding, [None, vector_dim(self._config)])}

    def _embed(self, given: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """Embeddings [B, D], and bool [B]: whether a row asks for anything."""
        read = self.preprocessor.modalities("query")
        names = [*read, *self._facts] if "history" in read else read
        raw = {name: given[name] for name in names if name in given}
        return self._functions.embed(raw)

    def _embedded(self, raw: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        features = self.preprocessor.query(raw)
        if self._config.text.handle == SMALL:
            # Which is traced for any width; a query has few of the tokens that it may have.
            widths = ("text/ids", "text/ngrams")
            features |= {name: _cut(features[name]) for name in widths if name in features}
        rows = tf.shape(features["row"])[0]
        parts = tf.zeros([rows], tf.float32)
        for modality in MEDIA:
            if f"{modality}/row" in features:
                row = features[f"{modality}/row"]
                parts += tf.math.unsorted_segment_sum(tf.ones_like(row, tf.float32), row, rows)
        if "history" in features:
            items, known = self._past(features["history"])
            if affinity_widths(self._config):
                features |= {"history/affinity": affinity_part(items, self._config)}
            fused = fused_part(items, self._config.tower.dim, late_parts(self._config))
            features = features | {"history/items": fused, "history/known": known}
            parts += tf.reduce_max(known, axis=1)
        embedding = self._call_query(features)
        return tf.ensure_shape(embedding, [None, vector_dim(self._config)]), parts > 0

    def _past(self, history: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What `known_items` gives; most batches have no history, and it is much to gather."""
        shape = tf.shape(history)
        dim = self.index.vectors.shape[1]
        items, known = tf.cond(
            tf.reduce_any(history > 0),
            lambda: known_items(history, self.index.vectors_of(tf.maximum(history - 1, 0))),
            lambda: (tf.zeros(tf.concat([shape, [dim]], axis=0)), tf.zeros(shape)),
        )
        return tf.ensure_shape(items, [*history.shape, dim]), tf.ensure_shape(known, history.shape)

    def _checked_k(self, k: tf.Tensor) -> tf.Tensor:
        largest = self._config.catalogue.max_k
        bad = tf.logical_or(k < 1, k > largest)

        def sentence() -> tf.Tensor:
            received = tf.as_string(k[tf.argmax(tf.cast(bad, tf.int32))])
            return tf.strings.join([f"k: expected 1..{largest}, received ", received])

        check = inputs.refuse_unless(tf.logical_not(tf.reduce_any(bad)), sentence)
        with tf.control_dependencies([check]):
            return tf.identity(k)

    def _found(
        self, queries: tf.Tensor, asked: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor
    ) -> Hits:
        """Hits of the rows that ask for something, popular products for the others."""
        return self._restricted.without_rules(Rows(queries, k, excluded, tf.logical_not(asked), {}))

    def _found_under_rules(
        self,
        queries: tf.Tensor,
        asked: tf.Tensor,
        k: tf.Tensor,
        excluded: tf.Tensor,
        rules: Tensors,
    ) -> Hits:
        """The same where rows may have rules."""
        return self._restricted.search(Rows(queries, k, excluded, tf.logical_not(asked), rules))

    def _ranked(self, *asked: Any) -> Tensors:
        return self._fields(*self._functions.find(*asked))

    def _ranked_under_rules(self, *asked: Any) -> Tensors:
        return self._fields(*self._functions.find_ruled(*asked))

    def _fields(self, scores: tf.Tensor, indices: tf.Tensor) -> Tensors:
        found = indices >= 0
        at = tf.maximum(indices, 0)
        answer: Tensors = {"score": tf.where(found, scores, LOWEST)}
        for name, column in self.columns.items():
            blank = tf.constant("" if column.dtype == tf.string else NO_NUMBER, column.dtype)
            answer[name] = tf.where(found, tf.gather(column, at), blank)
        return answer


def _cut(ids: tf.Tensor) -> tf.Tensor:
    """Ids [C, L] without the columns at the end that are padding in every row; one column stays.

    Ids stand on the left without gaps.
    """
    used = tf.reduce_sum(tf.cast(tf.reduce_any(ids != 0, axis=0), tf.int32))
    return ids[:, : tf.maximum(used, 1)]


def _columns(config: Config, products: Mapping[str, npt.NDArray[Any]]) -> dict[str, tf.Variable]:
    """The id and the returned columns as variables [N]; a missing number becomes NO_NUMBER."""
    wanted: Sequence[str] = [n for n in config.catalogue.returned if n != "product_id"]
    if "score" in wanted:
        raise TfmmError("catalogue.returned: expected columns other than score, received score")
    variables = {}
    for name in ("product_id", *wanted):
        variables[name] = growing(returned_values(np.asarray(products[name])), name)
    return variables
