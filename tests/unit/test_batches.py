from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmm  # noqa: F401
from tfmm.config import AugmentConfig, Boost, CatalogueConfig, Config, TowerConfig, TrainConfig
from tfmm.data.batches import BatchPlan, Stores, dataset
from tfmm.data.pairs import Pairs
from tfmm.data.share import Share
from tfmm.data.store import FeatureStore
from tfmm.errors import TfmmError
from tfmm.sampling import sampling_probability

PRODUCTS, LOGGED, VARIANTS = 6, 40, 2
H, W = 4, 4
NO_CHANGE = AugmentConfig(**{field.name: 0.0 for field in fields(AugmentConfig)})


def store(path: Path, rows: int, *, text: Any, image: Any) -> FeatureStore:
    text, image = np.asarray(text, np.int32), np.asarray(image, np.int32)
    batch = {
        "row": np.arange(rows, dtype=np.int32),
        "text/row": text,
        "text/ids": np.stack([text, text], axis=1) + 1,
        "image/row": image,
        "image/pixels": np.tile(image[:, None, None, None].astype(np.uint8), (1, H, W, 3)),
    }
    return FeatureStore.write(path, [batch], stamp="x")


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(
        products=store(tmp_path / "p", PRODUCTS, text=range(PRODUCTS), image=[0, 2, 3, 4]),
        # Queries 0..29 have text, 20..39 a photo.
        queries=store(tmp_path / "q", LOGGED, text=range(30), image=range(20, 40)),
        catalogue_queries=store(
            tmp_path / "c", PRODUCTS * VARIANTS, text=range(PRODUCTS * VARIANTS), image=[]
        ),
        variants=VARIANTS,
        # Two mixed queries a product, but for product 1, which has none.
        changes=store(
            tmp_path / "m",
            PRODUCTS * 2,
            text=[n for n in range(PRODUCTS * 2) if n // 2 != 1],
            image=[],
        ),
        photographed=np.where(np.arange(PRODUCTS * 2) // 2 == 2, 3, 2).astype(np.int32),
    )


@pytest.fixture
def pairs() -> Pairs:
    return Pairs(
        query=np.arange(LOGGED),
        product=(np.arange(LOGGED) % PRODUCTS).astype(np.int32),
        weight=np.where(np.arange(LOGGED) % 2, 3.0, 1.0).astype(np.float32),
        purchased=np.arange(LOGGED) % 4 == 1,
        timestamp_us=np.arange(LOGGED),
        history=np.tile(np.arange(LOGGED, dtype=np.int32)[:, None] + 1, (1, 3)),
        history_event=np.tile(np.arange(LOGGED)[:, None] % 3 + 1, (1, 3)).astype(np.int8),
        history_age_s=np.tile(np.arange(LOGGED, dtype=np.float32)[:, None], (1, 3)),
        shopper=np.zeros(LOGGED, np.int32),
        position=np.full(LOGGED, -1, np.int32),
        passed=np.zeros((LOGGED, 0), np.int32),
        others=np.zeros((LOGGED, 0), np.int32),
    )


def config(share: float) -> Config:
    return Config(
        seed=5,
        catalogue=CatalogueConfig(history_length=3),
        tower=TowerConfig(query=("text", "image", "history"), product=("text", "image")),
        train=TrainConfig(catalogue_share=share),
    )


def test_every_batch_has_the_same_shapes_and_the_parts_agree(stores: Stores, pairs: Pairs):
    plan = BatchPlan(config(0.25), pairs, stores, batch_size=16)
    shapes = {name: value.shape for name, value in plan.batch(0).items()}
    for number in range(7):
        batch = plan.batch(number)
        assert {name: value.shape for name, value in batch.items()} == shapes
        product = batch["product_index"]
        # Query text ids are the query's row + 1, and query q asks for product q % 6.
        for modality, name in (("text", "query:text/ids"), ("image", "query:image/pixels")):
            rows = batch[f"query:{modality}/row"]
            first = batch[name].reshape(len(rows), -1)[:, 0].astype(int)
            mixed = np.intersect1d(batch["query:text/row"], batch["query:image/row"])
            for row, value in zip(rows, first - (modality == "text"), strict=True):
                from_log = batch["query:history"][row, 0] > 0
                if from_log:
                    assert batch["query:history/event"][row, 0] == value % 3 + 1
                    assert batch["query:history/age"][row, 0] == value
                    assert product[row] == value % PRODUCTS
                    assert batch["query:history"][row, 0] == value + 1
                elif row not in mixed:
                    scale = VARIANTS if modality == "text" else 1
                    assert product[row] == value // scale


def test_an_epoch_shows_every_pair(stores: Stores, pairs: Pairs):
    plan = BatchPlan(config(0.25), pairs, stores, batch_size=16)
    seen: set[int] = set()
    for number in range(plan.batches_per_epoch + 1):
        seen |= set(plan.batch(number)["query:history"][:, 0].tolist())
    assert seen == set(range(LOGGED + 1))


def test_a_batch_is_a_function_of_its_number(stores: Stores, pairs: Pairs):
    one = BatchPlan(config(0.25), pairs, stores, batch_size=16)
    two = BatchPlan(config(0.25), pairs, stores, batch_size=16)
    for number in range(5):
        one.batch(number)
    for name, value in one.batch(5).items():
        np.testing.assert_array_equal(value, two.batch(5)[name])
    assert any((one.batch(5)[name] != two.batch(6)[name]).any() for name in one.batch(5))


def test_weights_of_logged_pairs_have_mean_one(stores: Stores, pairs: Pairs):
    plan = BatchPlan(config(0.0), pairs, stores, batch_size=40)
    weights = np.concatenate([plan.batch(n)["weight"] for n in range(40)])
    assert weights.mean() == pytest.approx(1.0, abs=0.05)
    assert set(np.unique(weights)) == {0.5, 1.5}


def test_products_without_a_photo_are_padding(stores: Stores, pairs: Pairs):
    batch = BatchPlan(config(0.25), pairs, stores, batch_size=16).batch(0)
    has = np.isin(batch["product_index"], [0, 2, 3, 4])
    np.testing.assert_array_equal(batch["product:image/row"], np.where(has, np.arange(16), -1))
    assert batch["product:image/pixels"][~has].max(initial=0) == 0


def test_the_share_of_catalogue_rows_is_what_the_plan_says(stores: Stores, pairs: Pairs):
    plan = BatchPlan(config(0.25), pairs, stores, batch_size=16)
    assert (plan.batch(3)["query:history"][:, 0] == 0).mean() == 0.25


def test_sources_tell_how_often_each_product_is_shown(stores: Stores, pairs: Pairs):
    probability = sampling_probability(
        BatchPlan(config(0.25), pairs, stores, batch_size=16).sources()
    )
    plan = BatchPlan(config(0.25), pairs, stores, batch_size=16)
    shown = np.concatenate([plan.batch(number)["product_index"] for number in range(300)])
    measured = np.bincount(shown, minlength=PRODUCTS) / len(shown)
    np.testing.assert_allclose(measured, probability, atol=0.01)


def test_a_boosted_modality_is_drawn_more_often(stores: Stores, pairs: Pairs):
    plain, boosted = config(0.0), config(0.0)
    boosted = replace(boosted, train=replace(boosted.train, boost=Boost(image=5.0)))
    counts = [
        len(BatchPlan(c, pairs, stores, batch_size=20).batch(0)["query:image/row"])
        for c in (plain, boosted)
    ]
    # Of 40 pairs 20 have text only, 10 text and photo, 10 a photo only.
    assert counts[0] == 10
    # One row for each of the three groups, the other 17 as 20 : 50 : 50, so 4, 8 and 8.
    assert counts[1] == 16


def test_photos_of_products_are_read_for_a_share_of_the_queries_without_one(
    stores: Stores, pairs: Pairs
):
    sparing = config(0.25)
    sparing = replace(sparing, train=replace(sparing.train, product_photo_share=0.0))
    batch = BatchPlan(sparing, pairs, stores, batch_size=16).batch(0)
    asked = set(batch["query:image/row"].tolist())
    read = set(batch["product:image/row"].tolist()) - {-1}
    assert read <= asked
    has = {row for row in asked if batch["product_index"][row] in (0, 2, 3, 4)}
    assert read == has


def test_a_shop_without_a_log_trains_from_its_catalogue(stores: Stores, pairs: Pairs):
    nothing = pairs.take(np.zeros(LOGGED, dtype=bool))
    plan = BatchPlan(config(0.25), nothing, stores, batch_size=8)
    assert plan.batch(0)["query:history"].max() == 0
    with pytest.raises(TfmmError, match="found none of them"):
        BatchPlan(config(0.0), nothing, stores, batch_size=8)


def test_the_pipeline_starts_at_any_batch_with_static_shapes(stores: Stores, pairs: Pairs):
    plan = BatchPlan(config(0.25), pairs, stores, batch_size=16)
    batches = dataset(plan, NO_CHANGE, start=3, stop=5)
    for spec in batches.element_spec["query"].values():
        assert spec.shape.is_fully_defined()
    got = list(batches.as_numpy_iterator())
    assert len(got) == 2
    expected = plan.batch(3)
    np.testing.assert_array_equal(got[0]["product_index"], expected["product_index"])
    np.testing.assert_array_equal(got[0]["query"]["text/ids"], expected["query:text/ids"])
    np.testing.assert_array_equal(
        got[0]["product"]["image/pixels"], expected["product:image/pixels"]
    )


def test_a_process_makes_the_batches_of_its_own_replicas_and_no_others(
    stores: Stores, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
):
    plan = BatchPlan(config(0.25), pairs, stores, batch_size=16)
    expected = {number: plan.batch(number)["product_index"] for number in range(4, 12)}
    made: list[int] = []
    whole = BatchPlan.batch

    def batch(self: BatchPlan, number: int) -> Any:
        made.append(number)
        return whole(self, number)

    monkeypatch.setattr(BatchPlan, "batch", batch)
    # The second of two processes with two replicas each, in the steps 1 and 2.
    share = Share(replicas=4, first=2, count=2)
    got = list(dataset(plan, NO_CHANGE, share, start=1, stop=3).as_numpy_iterator())
    assert sorted(set(made)) == [6, 7, 10, 11]
    for number, batch_made in zip((6, 7, 10, 11), got, strict=True):
        np.testing.assert_array_equal(batch_made["product_index"], expected[number])


def test_mixed_queries_of_the_catalogue_show_another_products_photo(stores: Stores, pairs: Pairs):
    plan = BatchPlan(config(0.75), pairs, stores, batch_size=40)
    for number in range(4):
        batch = plan.batch(number)
        rows = batch["query:image/row"]
        mixed = np.intersect1d(rows, batch["query:text/row"])
        from_catalogue = mixed[batch["query:history"][mixed].max(axis=1) == 0]
        assert len(from_catalogue)
        for row in from_catalogue:
            product = batch["product_index"][row]
            words = batch["query:text/ids"][list(batch["query:text/row"]).index(row), 0] - 1
            photo = batch["query:image/pixels"][list(rows).index(row), 0, 0, 0]
            assert words // 2 == product
            assert product != 1
            assert photo == stores.photographed[words]


def sampling(stores: Stores, pairs: Pairs, *, batch_size: int = 16) -> BatchPlan:
    train = TrainConfig(catalogue_share=0.25, batch_size=16, uniform_negatives=8, next_items=6)
    return BatchPlan(replace(config(0.25), train=train), pairs, stores, batch_size=batch_size)


def test_uniform_negatives_are_drawn_anew_for_each_batch_and_shared_by_replicas(
    stores: Stores, pairs: Pairs
):
    plan = sampling(stores, pairs)
    drawn = [plan.batch(number)["negatives"] for number in range(40)]
    assert all(len(negatives) == 8 for negatives in drawn)
    assert set(np.concatenate(drawn).tolist()) == set(range(PRODUCTS))
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(sampling(stores, pairs).batch(7)["negatives"], drawn[7])
    assert len(sampling(stores, pairs, batch_size=8).batch(0)["negatives"]) == 4
    assert "negatives" not in BatchPlan(config(0.25), pairs, stores, batch_size=16).batch(0)


def test_next_items_stand_behind_their_places(stores: Stores, pairs: Pairs):
    history = pairs.history % PRODUCTS
    history[::3, 0] = 0
    batch = sampling(stores, replace(pairs, history=history)).batch(2)
    row, place = np.divmod(batch["next_at"], 3)
    given = batch["query:history"]
    assert (given[row, place] > 0).all()
    np.testing.assert_array_equal(batch["next_product"], given[row, place + 1] - 1)
    np.testing.assert_array_equal(batch["next_weight"], 1)
    assert len(set(batch["next_at"].tolist())) == 6


def test_places_that_are_missing_weigh_nothing(stores: Stores, pairs: Pairs):
    lonely = replace(pairs, history=np.zeros((LOGGED, 3), np.int32))
    lonely.history[:, 2] = 1
    lonely.history[0, 1] = 4
    weights = [sampling(stores, lonely).batch(n)["next_weight"].sum() for n in range(20)]
    assert set(weights) == {0.0, 1.0}


def test_rows_bring_their_own_hard_negatives_and_other_positives(stores: Stores, pairs: Pairs):
    # The shopper of pair p passed over the next two products, and took the one after these too.
    passed = (pairs.product[:, None] + np.array([1, 2])) % PRODUCTS + 1
    passed[pairs.product == 0, 1] = 0
    others = (pairs.product[:, None] + 3) % PRODUCTS + 1
    log = replace(pairs, passed=passed.astype(np.int32), others=others.astype(np.int32))
    train = TrainConfig(catalogue_share=0.25, hard_negatives=1, other_positives=1)
    wide = replace(train, hard_negatives=3, catalogue_share=0.0)
    met: dict[int, set[int]] = {product: set() for product in range(PRODUCTS)}
    for number in range(30):
        plan = BatchPlan(replace(config(0.25), train=train), log, stores, batch_size=16)
        batch = plan.batch(number)
        of_log = batch["query:history"][:, 0] > 0
        assert batch["hard"].shape == batch["others"].shape == (16, 1)
        assert (batch["hard"][~of_log] == -1).all()
        assert (batch["others"][~of_log] == -1).all()
        product, hard = batch["product_index"][of_log], batch["hard"][of_log, 0]
        np.testing.assert_array_equal(batch["others"][of_log, 0], (product + 3) % PRODUCTS)
        for key, value in zip(product.tolist(), hard.tolist(), strict=True):
            met[key].add((value - key) % PRODUCTS)
    assert met == {product: {1} if product == 0 else {1, 2} for product in range(PRODUCTS)}
    batch = BatchPlan(replace(config(0.0), train=wide), log, stores, batch_size=16).batch(0)
    for product, row in zip(batch["product_index"], batch["hard"], strict=True):
        missing = 2 if product == 0 else 1
        assert sorted(row)[:missing] == [-1] * missing
        assert len(set(row.tolist())) == (2 if product == 0 else 3)


def test_hard_negatives_are_a_function_of_the_batch_number(stores: Stores, pairs: Pairs):
    passed = np.tile(np.arange(1, PRODUCTS + 1, dtype=np.int32), (LOGGED, 1))
    log = replace(pairs, passed=passed)
    chosen = replace(config(0.25), train=TrainConfig(catalogue_share=0.25, hard_negatives=2))
    drawn = [BatchPlan(chosen, log, stores, batch_size=16).batch(n)["hard"] for n in (4, 4, 5)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert "hard" not in BatchPlan(config(0.25), log, stores, batch_size=16).batch(0)


def test_purchases_count_by_purchase_however_few_they_are(stores: Stores, pairs: Pairs):
    train = TrainConfig(catalogue_share=0.25, purchase_task=1.0)
    plan = BatchPlan(replace(config(0.25), train=train), pairs, stores, batch_size=16)
    batches = [plan.batch(number) for number in range(plan.batches_per_epoch * 8)]
    for batch in batches:
        row = batch["query:history"][:, 0] - 1
        np.testing.assert_array_equal(batch["purchase"] > 0, pairs.purchased[row] & (row >= 0))
        assert batch["purchase"].dtype == np.float32
    assert np.mean([batch["purchase"].mean() for batch in batches]) == pytest.approx(1, rel=0.1)
    assert "purchase" not in BatchPlan(config(0.25), pairs, stores, batch_size=16).batch(0)
    none = replace(pairs, purchased=np.zeros(LOGGED, np.bool_))
    with pytest.raises(TfmmError, match="expected purchases among the training pairs"):
        BatchPlan(replace(config(0.25), train=train), none, stores, batch_size=16)
