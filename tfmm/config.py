"""The recipe: one tree of frozen dataclasses, read from TOML. Loads without TensorFlow."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tfmm.bounds import check_bounds, check_index, check_loss, check_value
from tfmm.errors import TfmmError
from tfmm.tree import make, set_value

Fusion = Literal["weighted", "concat", "attention", "mlp_fm"]
HistoryEncoder = Literal["mean", "attention"]
IndexKind = Literal["auto", "exact", "ivf", "scann"]
Storage = Literal["float32", "bfloat16", "int8"]
PositionBias = Literal["none", "inverse_propensity"]
Modality = Literal["text", "image", "audio", "history", "id", "popularity"]
Strategy = Literal["auto", "cpu", "gpu", "multi_gpu", "multi_worker", "tpu", "mirrored_cpu"]
MEDIA: tuple[Modality, ...] = ("text", "image", "audio")
"""What a query shows or says, and what encoders read."""


@dataclass(frozen=True)
class CatalogueConfig:
    """What of a product is read, and how.

    Attributes:
      text: Columns whose text the product tower reads, in this order.
      returned: Columns that a hit carries beside its id and score.
      facets: Columns whose values a query may restrict.
      ranges: Numeric columns that a query may bound below and above.
      history_length: Width H of the `history` input.
      exclude_length: Width X of the `exclude` input.
      facet_values: Width M of each facet's input.
      max_k: The largest k that a query may ask for.
      default_k: The k of a query that names none.
    """

    text: tuple[str, ...] = ("title", "description")
    returned: tuple[str, ...] = ("title", "price")
    facets: tuple[str, ...] = ("category", "brand")
    ranges: tuple[str, ...] = ("price",)
    history_length: int = 16
    exclude_length: int = 64
    facet_values: int = 8
    max_k: int = 1000
    default_k: int = 10


@dataclass(frozen=True)
class PrepareConfig:
    """How a dataset folder becomes TFRecord shards.

    Attributes:
      shards: Files a table is written to.
      max_reject_fraction: The largest share of a table's rows that may be bad.
      max_image_pixels: Photos with more pixels are rejected from their header alone.
      max_audio_seconds: Longer sounds are rejected.
    """

    shards: int = 8
    max_reject_fraction: float = 0.05
    max_image_pixels: int = 64_000_000
    max_audio_seconds: float = 60.0


@dataclass(frozen=True)
class TextConfig:
    """The text modality; `handle = ""` leaves it out.

    Attributes:
      handle: "small" for tfmm's own module, else a TF-Hub handle or a folder.
      preprocessing: Handle of a text preprocessing module in front of the encoder; "" tokenises
        with the vocabulary learnt from the catalogue.
      trainable: Whether training changes the encoder.
      width: Output width of the small module.
      vocabulary_size: WordPieces to learn.
      max_query_tokens: Tokens kept of a query.
      max_product_tokens: Tokens kept of a product.
      ngram_buckets: Hash buckets of the character n-grams that stand beside WordPieces in the
        small module, so that misspellings stay close to their words; 0 turns them off.
      case: "fold" ignores case and accents, "keep" preserves both.
    """

    handle: str = "small"
    preprocessing: str = ""
    trainable: bool = True
    width: int = 128
    vocabulary_size: int = 8000
    max_query_tokens: int = 24
    max_product_tokens: int = 64
    ngram_buckets: int = 16_384
    case: Literal["fold", "keep"] = "fold"


@dataclass(frozen=True)
class ImageConfig:
    """The image modality; `handle = ""` leaves it out.

    Attributes:
      handle: "small" for tfmm's own module, else a TF-Hub feature-vector handle or a folder.
      trainable: Whether training changes the encoder.
      height_px: Height that the encoder sees.
      width_px: Width that the encoder sees.
      width: Output width of the small module.
      channels: Channels of each stage of the small module; every stage halves the resolution.
    """

    handle: str = "small"
    trainable: bool = True
    height_px: int = 64
    width_px: int = 64
    width: int = 128
    channels: tuple[int, ...] = (32, 64, 128, 192)


@dataclass(frozen=True)
class AudioConfig:
    """The audio modality; `handle = ""` leaves it out.

    Attributes:
      handle: "small" for tfmm's own module, else a TF-Hub handle or a folder.
      front: What the encoder reads: "log_mel" frames, or the 16 kHz "waveform" (YAMNet-like).
      trainable: Whether training changes the encoder.
      seconds: Length that a sound is cut or padded to.
      mel_bins: Mel bands of a frame.
      frame_ms: Window of a frame in milliseconds.
      hop_ms: Step between frames in milliseconds.
      width: Output width of the small module.
      channels: Channels of the small module's convolutions over time.
    """

    handle: str = "small"
    front: Literal["log_mel", "waveform"] = "log_mel"
    trainable: bool = True
    seconds: float = 3.0
    mel_bins: int = 40
    frame_ms: float = 25.0
    hop_ms: float = 20.0
    width: int = 128
    channels: int = 128


@dataclass(frozen=True)
class LateFusion:
    """Modalities that are also compared on their own, and what that counts in a query.

    A vector has the fused part and one more for each modality named here: in a query the
    modality's own vector times its weight, or zeros without the modality; in a product its own
    vector, or the fused one again without it. A score is then the fused one plus the weighted
    scores of the modalities, and queries without them do not notice. It is for what fusion tends
    to lose, such as which of many like products a photo shows.

    The part of a history is an item-to-item model of its own, see `AffinityConfig`; it adds its
    weight times the logarithm of how likely the model finds a product, up to a constant.
    """

    text: float = 0.0
    image: float = 0.0
    audio: float = 0.0
    history: float = 0.0


@dataclass(frozen=True)
class TowerConfig:
    """How modalities become one unit vector.

    Attributes:
      dim: Width of the fused part of a vector, which is the whole of it without `late`.
      width: Width of the modality tokens that fusion sees.
      fusion: How the tokens of the modalities that are present are joined.
      late: Modalities compared on their own as well.
      shared_encoders: Whether query and product tower use the same encoders.
      query: Modalities of a query.
      product: Modalities of a product. "id" is a vector of its own for each product of the training
        log; "popularity" is how often that log asks for it, and how lately. Products that are not
        in it go without both.
      id_dropout: Probability of leaving the id out in training, so that a product is also learnt
        from its content.
      popularity_dropout: The same of the popularity.
      popularity_days: Windows in days, before the end of the training log, in which events are
        counted as well as in the whole of it.
      hub_dir: Where tfmm's own TF-Hub modules are built.
    """

    dim: int = 64
    width: int = 128
    fusion: Fusion = "weighted"
    late: LateFusion = field(default_factory=LateFusion)
    shared_encoders: bool = True
    query: tuple[Modality, ...] = ("text", "image", "audio", "history")
    product: tuple[Modality, ...] = ("text", "image")
    id_dropout: float = 0.2
    popularity_dropout: float = 0.2
    popularity_days: tuple[int, ...] = (1, 7, 30)
    hub_dir: str = "saved_models/hub"


@dataclass(frozen=True)
class HistoryConfig:
    """How a shopper's past products become one vector.

    Attributes:
      encoder: The mean of their vectors, or causal attention over them.
      layers: Transformer blocks of the attention.
      heads: Heads of each; they divide tower.width.
      dropout: Probability of dropping a number between blocks, in training.
      events: Whether the attention is told what happened to each product: click, cart, purchase.
      ages: Whether it is told how long before the query that was.
      facts_dropout: Probability of hiding the events of a whole history, and of hiding its ages, in
        training, so that clients who send neither are answered well.
    """

    encoder: HistoryEncoder = "mean"
    layers: int = 1
    heads: int = 2
    dropout: float = 0.1
    events: bool = False
    ages: bool = False
    facts_dropout: float = 0.2


@dataclass(frozen=True)
class AffinityConfig:
    """Which products go with which: what `tower.late.history` adds to a score.

    A factored item-to-item model over words, photos, ids and popularity, learnt after the towers
    from what each shopper took, whatever the order. It tells products apart more finely than a
    fused vector does, and needs no queries.

    Attributes:
      text_width: Numbers that a product's words become, a projection of their TF-IDF; 0 leaves
        words out.
      image_width: Numbers that its photo's encoding becomes; 0 leaves photos out.
      id_width: Numbers learnt of each product of the log; 0 leaves them out.
      length_power: A history of n products counts n to the power of 1 minus this: 1 takes their
        mean, 0 their sum, so that long ones outweigh popularity.
      epochs: Passes over the products of the shoppers.
      batch_size: Products a step.
      candidates: The most products that a step's softmax holds, drawn anew from a larger catalogue.
      learning_rate: Peak of Adam's learning rate.
      id_penalty: Squared penalty of the numbers learnt of products, summed over the catalogue.
      history_dropout: Probability of leaving a product of a history out, in training.
      new_share: Share of the products that a step takes for new ones, without numbers of their own
        and without a past, so that how popular such products become is learnt from the others.
      new_boost: What a product without a past is given beside that when it is served, as a
        logarithm: new products are shown more than they would earn, which is how they get a past.
    """

    text_width: int = 256
    image_width: int = 64
    id_width: int = 64
    length_power: float = 0.25
    epochs: float = 2.0
    batch_size: int = 1024
    candidates: int = 32_768
    learning_rate: float = 2e-3
    id_penalty: float = 3e-4
    history_dropout: float = 0.2
    new_share: float = 0.1
    new_boost: float = 0.0


@dataclass(frozen=True)
class AugmentConfig:
    """Changes made to training inputs only, all as probabilities or fractions in 0..1.

    Attributes:
      crop: Largest fraction of a photo's side cut away.
      flip: Probability of mirroring a photo left to right.
      colour: Strength of brightness, contrast and saturation changes.
      frequency_mask: Largest fraction of mel bands masked (SpecAugment).
      time_mask: Largest fraction of frames masked (SpecAugment).
      speed: Largest fraction by which a sound is made faster or slower.
      warp: Largest fraction by which its mel axis is stretched, as by another vocal tract.
      roll: Probability of putting a sound's end, from a random cut on, before its beginning. What
        is asked for seldom hangs on the order of the words.
      token_dropout: Probability of dropping a token.
      modality_dropout: Probability of dropping a modality where another remains.
    """

    crop: float = 0.15
    flip: float = 0.5
    colour: float = 0.2
    frequency_mask: float = 0.2
    time_mask: float = 0.1
    speed: float = 0.15
    warp: float = 0.1
    roll: float = 0.0
    token_dropout: float = 0.1
    modality_dropout: float = 0.2


@dataclass(frozen=True)
class SplitConfig:
    """The split by time. Dates win over fractions; all bounds are UTC.

    Attributes:
      validation_fraction: Share of the positive events, before the test, that validate.
      test_fraction: Share of the positive events, the last ones, kept for the test.
      validation_from: First instant of the validation period, ISO 8601, or "".
      test_from: First instant of the test period, ISO 8601, or "".
    """

    validation_fraction: float = 0.05
    test_fraction: float = 0.1
    validation_from: str = ""
    test_from: str = ""


@dataclass(frozen=True)
class EventWeights:
    """What one positive event of each type counts in the loss; 0 leaves the type out."""

    click: float = 1.0
    cart: float = 2.0
    purchase: float = 4.0


@dataclass(frozen=True)
class Boost:
    """How many times as often a logged pair is drawn whose query holds the modality.

    Rare modalities need it: without, an encoder sees too little to learn. The sampling correction
    takes account of it. A query of several modalities gets the largest of theirs.
    """

    text: float = 1.0
    image: float = 1.0
    audio: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """Training.

    Attributes:
      strategy: Distribution strategy, "auto" takes the best that is there; "multi_worker" is one
        process on each of several machines, which the environment variable TF_CONFIG names.
      batch_size: Pairs a step, over all replicas.
      catalogue_share: Share of each batch made from the catalogue alone: a product's words, its
        photo, or another's photo with words for the difference ask for it. Brings products without
        clicks, rare words and mixed queries into training.
      boost: What pairs are drawn more often.
      product_photo_share: Share of the rows without a photo in the query for which the product
        tower reads the product's photo. Photos cost most of a step, and words and voices learn
        little from them.
      epochs: Passes over the training pairs.
      max_steps: Upper bound of the steps; 0 for none.
      learning_rate: Peak of Adam's learning rate.
      warmup_steps: Steps in which it rises to the peak.
      decay_share: Share of the steps after that in which it falls to 0 along a cosine; before
        them it stays at the peak.
      weight_decay: Decoupled weight decay.
      temperature: Where the learnt softmax temperature starts.
      loss: "softmax"; "triplet" or "max_margin", which want a positive's cosine `margin` above that
        of the nearest negative beyond it or of each.
      margin: Difference of two cosines.
      unimodal: Weight of a second softmax for each modality, between products reduced to it and
        the queries that ask by it; 0 for none.
      symmetric: Weight of the softmax the other way round, of a product over the queries of the
        batch, for pairs of which either side may ask (Radford et al. 2021); 0 for none.
      purchase_task: Weight of a second task, a softmax over the purchases alone with a temperature
        of its own, for the same towers; the first is over all positive events. It counts by
        purchase, however few of the pairs are; 0 for none.
      uniform_negatives: Products a step, drawn from the whole catalogue and seen as negatives by
        all queries; 0 for none. Their encoders do not run: what these gave last is kept.
      hard_negatives: Products a pair that stood above the last click of its page, or one place
        below it, and were not taken: negatives of its own query alone; 0 for none. It needs
        impressions with positions; their encoders do not run either.
      hard_negative_weight: How often such a product counts in the softmax. With 1 the loss still
        estimates the softmax over the catalogue, with less noise; above, passed-over products are
        pushed down further than others.
      other_positives: Products a pair, to which the same shopper's same query also led (without a
        query, the same day), that are no negatives of it; 0 for none.
      next_items: Places a step, within the histories of the batch, whose next product is predicted
        too; 0 for none.
      log_q: Whether logits are corrected by the item's sampling probability.
      log_q_positive: Whether the positive's logit is corrected like those of negatives. Gradients
        are then not those of the full softmax, and popular products count less.
      checkpoint_steps: Steps between checkpoints.
      validate_steps: Steps between validations; 0 for once an epoch.
      patience: Validations without a better recall before training stops; 0 never stops early.
      jit_compile: Whether the step is compiled by XLA.
      weights: What an event counts.
      dwell_seconds: Dwell time d0 that leaves a click's weight as it is; d seconds multiply it by
        2 d / (d + d0), from 0 to 2, and an unknown time by 1. 0 leaves dwell times out.
      repeat_cap: Pairs kept of one shopper and product, the last ones; 0 for all.
      user_cap: Pairs kept of one shopper, the last ones; 0 for all.
      position_bias: With "inverse_propensity" a pair counts the more, the less likely shoppers look
        at the place where its product stood. How likely they are is estimated from the impressions
        of the log.
      max_position_weight: The most that a place multiplies a weight by.
    """

    strategy: Strategy = "auto"
    batch_size: int = 256
    catalogue_share: float = 0.25
    product_photo_share: float = 1.0
    epochs: int = 10
    max_steps: int = 0
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay_share: float = 1.0
    weight_decay: float = 1e-4
    temperature: float = 0.07
    loss: Literal["softmax", "triplet", "max_margin"] = "softmax"
    margin: float = 0.2
    unimodal: float = 1.0
    symmetric: float = 0.0
    purchase_task: float = 0.0
    uniform_negatives: int = 0
    hard_negatives: int = 0
    hard_negative_weight: float = 1.0
    other_positives: int = 0
    next_items: int = 0
    log_q: bool = True
    log_q_positive: bool = False
    checkpoint_steps: int = 200
    validate_steps: int = 0
    patience: int = 3
    jit_compile: bool = False
    weights: EventWeights = field(default_factory=EventWeights)
    dwell_seconds: float = 0.0
    repeat_cap: int = 0
    user_cap: int = 0
    position_bias: PositionBias = "none"
    max_position_weight: float = 10.0
    boost: Boost = field(default_factory=Boost)


@dataclass(frozen=True)
class IndexConfig:
    """The index; only `kind = "auto"` may take exact search for a small catalogue.

    Attributes:
      kind: "exact", "ivf", "scann" or "auto".
      storage: Numbers that the exact index keeps of vectors; in 64 dimensions scores are off by
        .0002 on average with "bfloat16", and by .0006 with "int8", a quarter of the memory.
      auto_exact_below: With "auto", catalogues smaller than this are searched exactly.
      recall_target: Share of the 100 best products that an export must find, measured against an
        exact search; what is 0 below is chosen so that it does.
      leaves: Parts that "ivf" and "scann" cut the catalogue into; 0 lets the export choose.
      leaves_to_search: Leaves searched a query; 0 lets the export choose.
      reorder: Candidates that ScaNN scores again with full vectors; 0 lets the export choose.
      dimensions_per_block: Dimensions that a code of ScaNN's asymmetric hashing covers; 0 takes 2,
        or 1 where the target is not reached otherwise.
      anisotropic_threshold: ScaNN's anisotropic quantisation threshold.
    """

    kind: IndexKind = "auto"
    storage: Storage = "float32"
    auto_exact_below: int = 20_000
    recall_target: float = 0.95
    leaves: int = 0
    leaves_to_search: int = 0
    reorder: int = 0
    dimensions_per_block: int = 0
    anisotropic_threshold: float = 0.2


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluation.

    Attributes:
      ks: Cut-offs of the metrics.
      bootstrap_samples: Resamples behind a confidence interval.
      mask_seen: On held-out events, whether products that a shopper has already interacted with
        are excluded from the ranking and from the targets.
      seen_types: Event types that make a product seen.
      target_types: Event types that make a held-out product a target.
    """

    ks: tuple[int, ...] = (1, 5, 10, 50, 100)
    bootstrap_samples: int = 1000
    mask_seen: bool = True
    seen_types: tuple[str, ...] = ("purchase",)
    target_types: tuple[str, ...] = ("purchase",)


@dataclass(frozen=True)
class Config:
    """A recipe. `name` names the model below `saved_models/`."""

    name: str = "model"
    seed: int = 0
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    text: TextConfig = field(default_factory=TextConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    tower: TowerConfig = field(default_factory=TowerConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    affinity: AffinityConfig = field(default_factory=AffinityConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


def load_config(path: str | Path | None, overrides: tuple[str, ...] = ()) -> Config:
    """Reads a recipe and applies overrides.

    Args:
      path: A TOML file, or None for the defaults.
      overrides: Strings `a.b=value`; a value is TOML, or else taken as a plain string.

    Raises:
      TfmmError: The file cannot be read, or a key or a value is not one that a recipe has.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise TfmmError(f"recipe: expected a readable TOML file, received {path}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TfmmError(f"{path}: expected TOML, received: {error}") from error
    for override in overrides:
        set_value(tree, override)
    return config_from_dict(tree, where=str(path) if path else "recipe")


def config_from_dict(tree: dict[str, Any], where: str = "recipe") -> Config:
    """Builds a checked `Config` from plain values, as `config_to_dict` writes them."""
    config: Config = make(Config, tree, where)
    _check(config, where)
    return config


def late_weights(config: Config) -> dict[str, float]:
    """Weight in a query of each medium that is also compared on its own."""
    weights = {name: getattr(config.tower.late, name) for name in MEDIA}
    return {name: weight for name, weight in weights.items() if weight}


def affinity_widths(config: Config) -> dict[str, int]:
    """Numbers of each part of a product that `affinity` reads; empty where it is off."""
    if not config.tower.late.history:
        return {}
    one = config.affinity
    named = {"text": one.text_width, "image": one.image_width}
    widths: dict[str, int] = {
        m: width
        for m, width in named.items()
        if width and m in config.tower.product and getattr(config, m).handle
    }
    return widths | ({"id": one.id_width} if one.id_width else {})


def late_parts(config: Config) -> int:
    """Unit vectors side by side in a product's vector, the fused one among them."""
    return 1 + len(late_weights(config)) + (2 if affinity_widths(config) else 0)


def vector_dim(config: Config) -> int:
    """Width D of query and product vectors."""
    fused = config.tower.dim * (1 + len(late_weights(config)))
    widths = affinity_widths(config)
    return fused + (sum(widths.values()) + 2 if widths else 0)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain values of a recipe, as JSON and TOML can hold them."""
    return dataclasses.asdict(config)


def _check(config: Config, where: str) -> None:
    check_bounds(config, where)
    check_value("catalogue.default_k", config, where, (1, config.catalogue.max_k))
    if not config.name or any(c in config.name for c in "/\\\0") or config.name.startswith("."):
        raise TfmmError(f"{where}: name: expected a folder name, received {config.name!r}")
    _check_tower(config, where)
    check_loss(config, where)
    check_index(config.index, where)


def _check_tower(config: Config, where: str) -> None:
    if "history" in config.tower.product:
        raise TfmmError(f"{where}: tower.product: expected text, image, audio, received history")
    for name in ("id", "popularity"):
        if name in config.tower.query:
            raise TfmmError(
                f"{where}: tower.query: expected text, image, audio, history, received {name}"
            )
    for days in config.tower.popularity_days:
        if not 1 <= days <= 36_500:
            raise TfmmError(
                f"{where}: tower.popularity_days: expected days of 1..36500, received {days}"
            )
    if not config.tower.query or not config.tower.product:
        raise TfmmError(f"{where}: tower: expected at least one modality a side, received none")
    if config.tower.width % config.history.heads:
        raise TfmmError(
            f"{where}: history.heads: expected a divisor of tower.width, {config.tower.width},"
            f" received {config.history.heads}"
        )
    for name in ("events", "ages"):
        if getattr(config.history, name) and config.history.encoder != "attention":
            raise TfmmError(
                f'{where}: history.{name}: expected history.encoder = "attention",'
                f' received "{config.history.encoder}"'
            )
    _check_late(config, where)


def _check_late(config: Config, where: str) -> None:
    for name in late_weights(config):
        if name not in config.tower.query or name not in config.tower.product:
            raise TfmmError(
                f"{where}: tower.late.{name}: expected a modality of queries and of products,"
                " it is not in tower.query or not in tower.product"
            )
        if not getattr(config, name).handle:
            raise TfmmError(f"{where}: tower.late.{name}: expected {name}.handle, it is empty")
    if config.tower.late.history:
        _check_affinity(config, where)


def _check_affinity(config: Config, where: str) -> None:
    if "history" not in config.tower.query:
        raise TfmmError(
            f"{where}: tower.late.history: expected history among tower.query,"
            f" received {', '.join(config.tower.query)}"
        )
    widths = affinity_widths(config)
    if not widths:
        raise TfmmError(
            f"{where}: tower.late.history: expected affinity.id_width, or affinity.text_width or"
            " affinity.image_width of a modality of products, all are 0"
        )
    if "text" in widths and config.text.preprocessing:
        raise TfmmError(
            f"{where}: affinity.text_width: expected 0 where a text.preprocessing module splits"
            f" words, received {config.affinity.text_width}"
        )
