"""Text on the host: normalisation, WordPiece, and character n-grams, all in one graph.

Normalisation, shared by `learn_vocabulary` and `TextFeatures`: invalid bytes and control characters
become spaces; NFKC (full-width letters, ligatures); invisible format characters and emoji variation
selectors go; `case = "fold"` folds case and takes the accents (U+0300..U+036F) off. Then Han
characters, punctuation and symbols, emoji among them, each stand alone, and what is left between
spaces is a word for WordPiece.
"""

from __future__ import annotations

import collections
import itertools
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow_text.tools.wordpiece_vocab import wordpiece_tokenizer_learner_lib as learner

from tfmm.config import TextConfig
from tfmm.errors import TfmmError

PAD, UNKNOWN, CLASSIFY, SEPARATOR, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
RESERVED = (PAD, UNKNOWN, CLASSIFY, SEPARATOR, MASK)
NGRAMS_PER_TOKEN = 2
CHARACTERS_PER_TOKEN = 4
LONGEST_WORD = 24
BATCH = 1024

_SPACE = r"[\s\p{Z}\p{Cc}]+"
_INVISIBLE = r"\p{Cf}|[\x{FE00}-\x{FE0F}]"
_ACCENTS = r"[\x{0300}-\x{036F}]"
_ALONE = r"([\p{Han}\p{S}\p{P}])"
_HAN_RUN_OR_MARKS = r"(\p{Han}+)|[\p{S}\p{P}]+"

_HAN = re.compile("[\u3007\u3400-\u9fff\uf900-\ufaff]")

Case = Literal["fold", "keep"]
Preprocessing = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def learn_vocabulary(texts: Iterable[str], *, size: int, case: Case) -> list[str]:
    """Learns WordPieces with TensorFlow Text's learner.

    Characters that stand alone (Han, symbols, emoji, punctuation) are counted apart from words and
    all kept, as are the letters and digits of ASCII: `size` bounds them and the words together,
    unless such characters take more than half of it, in which case words still get that half. A
    catalogue with Han characters gets, beyond `size`, the other characters of the national
    standard that covers it best: the next product's title will have some that this one has not.

    Args:
      texts: The catalogue's texts.
      size: WordPieces wanted, the reserved ones included.
      case: As `TextConfig.case`.

    Returns:
      The vocabulary: `RESERVED`, single characters, then pieces of words, the frequent ones first.
    """
    counts: collections.Counter[str] = collections.Counter()
    for batch in _batches(texts):
        for line in _tokenisable(tf.constant(batch, tf.string), case).numpy():
            counts.update(line.decode("utf-8").split())
    alone = _standing_alone(counts)
    words = {word: n for word, n in counts.items() if word not in alone}
    letters = string.digits + string.ascii_lowercase
    letters += string.ascii_uppercase if case == "keep" else ""
    characters = [*sorted(alone | set(string.punctuation)), *letters]
    kept = list(dict.fromkeys([*RESERVED, *characters, *(f"##{letter}" for letter in letters)]))
    room = max(size - len(kept), size // 2)
    learnt = kept + _pieces(words, room, frozenset(kept))
    return learnt + sorted(_standard_characters(alone, case) - set(learnt))


def _batches(texts: Iterable[str]) -> Iterator[list[bytes]]:
    encoded = (text.encode("utf-8", "replace") for text in texts)
    while batch := list(itertools.islice(encoded, BATCH)):
        yield batch


def _standing_alone(words: Iterable[str]) -> set[str]:
    single = [word for word in words if len(word) == 1]
    stands = tf.strings.regex_full_match(tf.constant(single, tf.string), _ALONE).numpy()
    return set(itertools.compress(single, stands))


def _standard_characters(alone: set[str], case: Case) -> set[str]:
    """Characters of GB 2312 or of Big5's frequent level, whichever holds more of the Han given."""
    han = {character for character in alone if _HAN.match(character)}
    if not han:
        return set()
    standards = (_coded("gb2312", (0xA1, *range(0xB0, 0xF8))), _coded("big5", range(0xA1, 0xC7)))
    best = max(standards, key=lambda standard: len(han & standard))
    lines = _tokenisable(tf.constant(sorted(best), tf.string), case).numpy()
    return _standing_alone(line.decode("utf-8").strip() for line in lines)


def _coded(encoding: str, rows: Iterable[int]) -> set[str]:
    """Characters that a two-byte encoding has in these rows."""
    cells = (bytes([row, cell]) for row in rows for cell in range(0x40, 0xFF))
    return {text for cell in cells if len(text := cell.decode(encoding, "ignore")) == 1}


def _pieces(words: dict[str, int], room: int, known: frozenset[str]) -> list[str]:
    """At most `room` pieces beyond the known ones, the characters of words first."""
    words = {word: n for word, n in words.items() if len(word) <= LONGEST_WORD}
    if not words or room <= 0:
        return []
    learnt: list[str] = learner.learn(
        words,
        vocab_size=room + len(known),
        reserved_tokens=list(RESERVED),
        lower_thresh=2,
        upper_thresh=max(4, 20 * sum(words.values()) // room),
        num_iterations=4,
        max_token_length=LONGEST_WORD,
        max_unique_chars=room // 4,
    )
    return [piece for piece in learnt if piece not in known][:room]


def _clean(text: tf.Tensor, case: Case) -> tf.Tensor:
    """Normalised text [B], Han and punctuation not yet set apart."""
    text = tf.strings.unicode_transcode(
        text, "UTF-8", "UTF-8", errors="replace", replacement_char=32
    )
    text = tf.strings.regex_replace(text, _SPACE, " ")
    text = tf_text.normalize_utf8(text, "NFKC")
    if case == "fold":
        text = tf_text.normalize_utf8(tf_text.case_fold_utf8(text), "NFD")
        text = tf_text.normalize_utf8(tf.strings.regex_replace(text, _ACCENTS, ""), "NFC")
    return tf.strings.regex_replace(text, _INVISIBLE, "")


def _tokenisable(text: tf.Tensor, case: Case) -> tf.Tensor:
    return tf.strings.regex_replace(_clean(text, case), _ALONE, r" \1 ")


class TextFeatures(tf.Module):
    """From strings to the text features of a tower.

    With the learnt vocabulary: "ids" int32 [B, L] and, with `ngram_buckets`, "ngrams" int32 [B, G],
    where G is `NGRAMS_PER_TOKEN` L; both 0 where there is nothing. With a preprocessing module in
    front: its "input_word_ids", "input_mask", "input_type_ids" int32 [B, its length].
    Every result also has "present" bool [B].

    Args:
      config: The recipe's text section.
      vocabulary: As `learn_vocabulary` returns it; not read with `preprocessing`.
      preprocessing: A loaded TF-Hub text preprocessing module, strings [B] to a dict.

    Raises:
      TfmmError: The vocabulary does not begin with the reserved pieces.
    """

    def __init__(
        self,
        config: TextConfig,
        vocabulary: Sequence[str],
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self._config = config
        self._preprocessing = preprocessing
        if preprocessing is not None:
            return
        if tuple(vocabulary[: len(RESERVED)]) != RESERVED:
            raise TfmmError(
                f"vocabulary: expected {', '.join(RESERVED)} first, received"
                f" {', '.join(vocabulary[: len(RESERVED)]) or 'nothing'}"
            )
        self._tokenizer = tf_text.FastWordpieceTokenizer(
            list(vocabulary), token_out_type=tf.int32, unknown_token=UNKNOWN
        )

    def query(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Features of queries, strings [B]."""
        return self._features([text], self._config.max_query_tokens)

    def product(self, fields: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Features of products; each field is strings [B].

        Fields that are there are joined with [SEP] between them. Where they do not all fit, a
        field shorter than its equal share is whole and the others divide what it leaves.
        """
        return self._features(fields, self._config.max_product_tokens)

    def _features(self, fields: Sequence[tf.Tensor], width: int) -> dict[str, tf.Tensor]:
        if self._preprocessing is not None:
            return self._preprocessed(fields, CHARACTERS_PER_TOKEN * width)
        clean = [_clean(field, self._config.case) for field in fields]
        ids = share([self._ids(field, width) for field in clean], width + 1)[:, 1:]
        features = {"ids": tf.ensure_shape(ids, [None, width])}
        if self._config.ngram_buckets:
            count = NGRAMS_PER_TOKEN * width
            grams = share([self._ngrams(field, count) for field in clean], count)
            features["ngrams"] = tf.ensure_shape(grams, [None, count])
        return features | {"present": tf.reduce_any(ids != 0, axis=1)}

    def _ids(self, clean: tf.Tensor, width: int) -> tf.Tensor:
        """Ids of a field [B, width + 1], behind a [SEP] where it has any."""
        spaced = tf.strings.regex_replace(clean, _ALONE, r" \1 ")
        ids = self._tokenizer.tokenize(spaced).to_tensor(0, shape=[None, width])
        separator = tf.where(ids[:, :1] != 0, RESERVED.index(SEPARATOR), 0)
        return tf.concat([separator, ids], axis=1)

    def _ngrams(self, clean: tf.Tensor, width: int) -> tf.Tensor:
        """Hashed n-grams of a field [B, width]: trigrams of "<word>", bigrams of Han runs.

        A Han run of one character is that character.
        """
        spaced = tf.strings.regex_replace(clean, _HAN_RUN_OR_MARKS, r" \1 ")
        split = tf.raw_ops.StringSplitV2(input=spaced, sep="")
        han = tf.strings.regex_full_match(split.values, r"\p{Han}+")
        words = tf.where(han, split.values, tf.strings.join(["<", split.values, ">"]))
        grams, word = _character_ngrams(words, tf.where(han, 2, 3))
        hashed = tf.strings.to_hash_bucket_fast(grams, self._config.ngram_buckets - 1)
        return tf.raw_ops.RaggedTensorToTensor(
            shape=tf.constant([-1, width], tf.int64),
            values=tf.cast(hashed, tf.int32) + 1,
            default_value=0,
            row_partition_tensors=[split.shape[0], tf.gather(split.indices[:, 0], word)],
            row_partition_types=["FIRST_DIM_SIZE", "VALUE_ROWIDS"],
        )

    def _preprocessed(self, fields: Sequence[tf.Tensor], characters: int) -> dict[str, tf.Tensor]:
        """A preprocessing module trims only what is joined: so characters are shared out here."""
        clean = [tf.strings.strip(_without_controls(field)) for field in fields]
        lengths = [tf.strings.length(field, unit="UTF8_CHAR") for field in clean]
        limits = tf.unstack(fair_limits(tf.stack(lengths, axis=1), characters), axis=1)
        cut = [
            tf.strings.substr(field, tf.zeros_like(limit), limit, unit="UTF8_CHAR")
            for field, limit in zip(clean, limits, strict=True)
        ]
        joined = tf.strings.strip(tf.strings.reduce_join(tf.stack(cut, 1), 1, separator=" "))
        assert self._preprocessing is not None
        made = self._preprocessing(joined)
        names = ("input_word_ids", "input_mask", "input_type_ids")
        features = {name: tf.cast(made[name], tf.int32) for name in names}
        return features | {"present": joined != ""}


def _without_controls(text: tf.Tensor) -> tf.Tensor:
    text = tf.strings.unicode_transcode(
        text, "UTF-8", "UTF-8", errors="replace", replacement_char=32
    )
    return tf.strings.regex_replace(text, _SPACE, " ")


def _character_ngrams(words: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """N-grams of each word, and which word each is of.

    Ragged tensors would say this in fewer lines, and be five times as many operations, which is
    what a short query takes its time for.

    Args:
      words: Strings [W], none empty.
      width: int32 [W], characters of each n-gram; a shorter word is one.
    """
    count = tf.maximum(tf.strings.length(words, unit="UTF8_CHAR") - width + 1, 1)
    made = tf.raw_ops.RaggedRange(starts=0, limits=count, deltas=1, Tsplits=tf.int32)
    start, ends = made.rt_dense_values, made.rt_nested_splits[1:]
    numbers = tf.range(tf.size(start))
    word = tf.raw_ops.UpperBound(sorted_inputs=ends[tf.newaxis], values=numbers[tf.newaxis])[0]
    sizes = tf.gather(width, word)
    return tf.strings.substr(tf.gather(words, word), start, sizes, unit="UTF8_CHAR"), word


def fair_limits(lengths: tf.Tensor, budget: int) -> tf.Tensor:
    """How many items of each field may stay, int32 [B, F], at most `budget` a row in all.

    Max-min fairness: shorter fields first, each takes what it needs or an equal share of what is
    left.

    Args:
      lengths: Items that each field has, int32 [B, F].
      budget: Items of a row.
    """
    order = tf.argsort(lengths, axis=1, stable=True)
    ascending = tf.unstack(tf.gather(lengths, order, batch_dims=1), axis=1)
    left = tf.fill([tf.shape(lengths)[0]], budget)
    limits = []
    for position, length in enumerate(ascending):
        limits.append(tf.minimum(length, left // (len(ascending) - position)))
        left -= limits[-1]
    back = tf.argsort(order, axis=1, stable=True)
    return tf.gather(tf.stack(limits, axis=1), back, batch_dims=1)


def share(fields: Sequence[tf.Tensor], width: int) -> tf.Tensor:
    """Joins fields int32 [B, any], 0 where there is nothing, into rows [B, width] fairly."""
    if len(fields) == 1:
        return fields[0][:, :width]
    lengths = tf.stack([tf.reduce_sum(tf.cast(f != 0, tf.int32), axis=1) for f in fields], axis=1)
    limits = tf.unstack(fair_limits(lengths, width), axis=1)
    cut = [
        tf.where(tf.range(tf.shape(field)[1]) < limit[:, tf.newaxis], field, 0)
        for field, limit in zip(fields, limits, strict=True)
    ]
    joined = tf.concat(cut, axis=1)
    return tf.ragged.boolean_mask(joined, joined != 0).to_tensor(0, shape=[None, width])
