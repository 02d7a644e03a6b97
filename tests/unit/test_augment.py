import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import dataclasses

import numpy as np
import tensorflow as tf

from tfmm.config import AugmentConfig
from tfmm.data.augment import augment

OFF = AugmentConfig(
    crop=0.0, flip=0.0, colour=0.0, frequency_mask=0.0, time_mask=0.0,
    token_dropout=0.0, modality_dropout=0.0, speed=0.0, warp=0.0,
)  # fmt: skip


def batch(rows=6):
    rng = np.random.default_rng(0)
    row = np.arange(rows, dtype=np.int32)
    row[1] = -1
    return {
        "row": tf.range(rows),
        "history": tf.constant(rng.integers(1, 9, [rows, 4]), tf.int32),
        "text/row": tf.constant(row),
        "text/ids": tf.constant(rng.integers(4, 90, [rows, 8]), tf.int32),
        "text/ngrams": tf.constant(rng.integers(1, 90, [rows, 16]), tf.int32),
        "image/row": tf.constant(row),
        "image/pixels": tf.constant(smooth(rows)),
        "audio/row": tf.constant(row),
        "audio/log_mel": tf.constant(rng.normal(size=[rows, 50, 20]), tf.float32),
    }


def smooth(rows):
    """Photos whose red rises to the right and whose green rises downwards."""
    y, x = np.mgrid[0:16, 0:16]
    image = np.stack([10 * x + 40, 10 * y + 40, 0 * x + 90], axis=-1)
    return np.stack([image] * rows).astype(np.uint8)


def changed(**settings):
    features = batch()
    made = augment(features, dataclasses.replace(OFF, **settings))
    return features, {name: np.asarray(value) for name, value in made.items()}


def assert_only(names, before, after):
    assert set(before) == set(after)
    for name, value in before.items():
        assert after[name].dtype == value.numpy().dtype
        assert after[name].shape == value.shape
        if name not in names:
            np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_with_everything_off_nothing_changes():
    assert_only(set(), *changed())


def test_padding_stays_as_it_is():
    names = {field.name for field in dataclasses.fields(AugmentConfig)} - {
        "modality_dropout",
    }
    before, after = changed(**dict.fromkeys(names, 0.5))
    for name, value in before.items():
        if "/" in name and not name.endswith("row"):
            np.testing.assert_array_equal(after[name][1], value[1])
            assert (after[name][[0, 2, 3, 4, 5]] != value.numpy()[[0, 2, 3, 4, 5]]).any()


def test_a_flip_mirrors_left_and_right_only():
    before, after = changed(flip=1.0)
    assert_only({"image/pixels"}, before, after)
    mirrored = before["image/pixels"].numpy()[:, :, ::-1]
    np.testing.assert_array_equal(after["image/pixels"][[0, 2]], mirrored[[0, 2]])


def test_half_of_the_photos_are_flipped_at_a_probability_of_one_half():
    features = {"row": tf.range(400), "image/row": tf.range(400), "image/pixels": smooth(400)}
    made = augment(features, dataclasses.replace(OFF, flip=0.5))["image/pixels"].numpy()
    falling = made[:, 0, 0, 0].astype(int) > made[:, 0, -1, 0]
    assert 150 < falling.sum() < 250


def test_a_crop_keeps_the_order_of_the_pixels_and_cuts_at_most_its_share():
    before, after = changed(crop=0.4)
    assert_only({"image/pixels"}, before, after)
    pixels = after["image/pixels"].astype(int)
    assert (np.diff(pixels[..., 0], axis=2) >= 0).all()
    assert (np.diff(pixels[..., 1], axis=1) >= 0).all()
    shown = (pixels[:, 0, -1, 0] - pixels[:, 0, 0, 0]) / 150
    assert shown[1] == 1
    assert (shown >= 0.6 - 0.01).all()
    assert len(np.unique(pixels[:, 0, 0, 0])) > 2


def test_colour_changes_each_photo_by_an_affine_map_of_its_own():
    before, after = changed(colour=0.2)
    assert_only({"image/pixels"}, before, after)
    shifts = []
    for row in (0, 2, 3, 4, 5):
        source = before["image/pixels"].numpy()[row].reshape(-1, 3).astype(float)
        target = after["image/pixels"][row].reshape(-1, 3).astype(float)
        inside = ((target > 0) & (target < 255)).all(axis=1)
        design = np.concatenate([source[:, :2], np.ones([len(source), 1])], axis=1)[inside]
        solution, *_ = np.linalg.lstsq(design, target[inside], rcond=None)
        np.testing.assert_allclose(design @ solution, target[inside], atol=1.1)
        shifts.append(target.mean() - source.mean())
    assert np.std(shifts) > 1
    assert np.abs(shifts).max() < 0.2 * 255


def masked(axis, values):
    """Widths of the stripes of zeros that cross a spectrogram [T, mel] along an axis."""
    return (values == 0).all(axis=1 - axis).sum()


def test_spec_augment_masks_one_band_and_one_stretch_of_each_sound():
    features = {
        "row": tf.range(200),
        "audio/row": tf.range(200),
        "audio/log_mel": tf.ones([200, 50, 20]),
    }
    settings = dataclasses.replace(OFF, frequency_mask=0.25, time_mask=0.1)
    made = augment(features, settings)["audio/log_mel"].numpy()
    bands = {masked(1, sound) for sound in made}
    frames = {masked(0, sound) for sound in made}
    assert bands == {0, 1, 2, 3, 4, 5}
    assert frames == {0, 1, 2, 3, 4, 5}
    for sound in made:
        gone = np.flatnonzero((sound == 0).all(axis=0))
        assert len(gone) == 0 or np.ptp(gone) == len(gone) - 1


def test_a_mask_of_everything_leaves_something():
    before, after = changed(frequency_mask=1.0, time_mask=1.0)
    assert (after["audio/log_mel"][0] != 0).any()
    assert_only({"audio/log_mel"}, before, after)


def test_dropped_tokens_become_0_where_they_stood():
    features = {"row": tf.range(300), "text/row": tf.range(300), "text/ids": tf.fill([300, 10], 7)}
    features["text/ngrams"] = tf.fill([300, 30], 9)
    made = augment(features, dataclasses.replace(OFF, token_dropout=0.3))
    for name, token in (("text/ids", 7), ("text/ngrams", 9)):
        values = made[name].numpy()
        assert set(np.unique(values)) == {0, token}
        assert abs((values == 0).mean() - 0.3) < 0.03


def test_separators_and_one_token_of_a_row_are_never_dropped():
    ids = tf.constant([[5, 3, 0, 0]] * 200)
    features = {"row": tf.range(200), "text/row": tf.range(200), "text/ids": ids}
    made = augment(features, dataclasses.replace(OFF, token_dropout=0.9))
    np.testing.assert_array_equal(made["text/ids"], ids)


def test_a_preprocessing_modules_tokens_are_hidden_but_for_the_first():
    mask = tf.constant([[1, 1, 1, 0]] * 300)
    features = {"row": tf.range(300), "text/row": tf.range(300), "text/input_mask": mask}
    features["text/input_word_ids"] = 9 * mask
    made = augment(features, dataclasses.replace(OFF, token_dropout=0.5))
    hidden = made["text/input_mask"].numpy()
    assert (hidden[:, 0] == 1).all()
    assert 0.4 < hidden[:, 1:3].mean() < 0.6
    assert (hidden[:, 3] == 0).all()
    np.testing.assert_array_equal(made["text/input_word_ids"], 9 * mask)


def present(features, rows):
    """Which rows have each modality, bool [rows, modalities]."""
    columns = []
    for name in ("text/row", "image/row", "audio/row"):
        column = np.zeros(rows, dtype=bool)
        row = np.asarray(features[name])
        column[row[row >= 0]] = True
        columns.append(column)
    columns.append((np.asarray(features["history"]) > 0).any(axis=1))
    return np.stack(columns, axis=1)


def modalities(rows=1000):
    rng = np.random.default_rng(1)
    has = rng.random([rows, 4]) < 0.5
    features = {"row": tf.range(rows)}
    for place, name in enumerate(("text", "image", "audio")):
        where = np.flatnonzero(has[:, place]).astype(np.int32)
        features[f"{name}/row"] = tf.constant(np.pad(where, (0, 3), constant_values=-1))
    features["history"] = tf.constant(np.where(has[:, 3:], [[0, 4]], 0), tf.int32)
    return features, has


def test_modality_dropout_never_takes_the_last_modality_of_a_row():
    for probability in (0.3, 1.0):
        features, has = modalities()
        left = present(
            augment(features, dataclasses.replace(OFF, modality_dropout=probability)), 1000
        )
        assert not (left & ~has).any()
        np.testing.assert_array_equal(left.any(axis=1), has.any(axis=1))
        if probability == 1.0:
            np.testing.assert_array_equal(left.sum(axis=1), has.any(axis=1))


def test_modality_dropout_takes_each_modality_at_its_probability():
    features, has = modalities()
    left = present(augment(features, dataclasses.replace(OFF, modality_dropout=0.2)), 1000)
    several = has.sum(axis=1) >= 3
    gone = (has & ~left)[several].sum(axis=0) / has[several].sum(axis=0)
    np.testing.assert_allclose(gone, 0.2, atol=0.06)


def test_encoded_features_of_a_frozen_encoder_pass_through():
    features = {"row": tf.range(2), "image/row": tf.range(2), "image/encoded": tf.ones([2, 3])}
    made = augment(features, AugmentConfig())
    np.testing.assert_array_equal(made["image/encoded"], 1)
    np.testing.assert_array_equal(made["image/row"], [0, 1])


def test_inside_tf_data_shapes_stay_static_and_batches_differ():
    spec = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in batch().items()}
    data = tf.data.Dataset.from_tensors(batch()).repeat(2)
    augmented = data.map(lambda features: augment(features, AugmentConfig()))
    assert augmented.element_spec == spec
    first, second = augmented
    for name in ("image/pixels", "audio/log_mel", "text/ids", "text/ngrams"):
        assert (first[name].numpy() != second[name].numpy()).any()


def test_speed_and_warp_move_what_is_heard_and_bring_silence_in():
    features = batch()
    spike = np.zeros([6, 50, 20], np.float32)
    spike[:, 25, 10] = 1.0
    features["audio/log_mel"] = tf.constant(spike)
    settings = dataclasses.replace(OFF, speed=0.3, warp=0.3)
    places = set()
    for _ in range(5):
        made = augment(features, settings)["audio/log_mel"].numpy()
        np.testing.assert_array_equal(made[1], spike[1])
        for row in (0, 2, 3, 4, 5):
            frame, band = np.unravel_index(made[row].argmax(), made[row].shape)
            # Position p of the original is heard at p / s, with s in 0.7..1.3.
            assert 25 / 1.3 - 1.5 <= frame <= 25 / 0.7 + 1.5
            assert 10 / 1.3 - 1.5 <= band <= 10 / 0.7 + 1.5
            places.add((int(frame), int(band)))
    assert len(places) > 10


def test_a_rolled_sound_is_the_same_frames_from_a_random_cut_on():
    features = batch()
    before = features["audio/log_mel"].numpy()
    tf.random.set_seed(1)
    after = augment(features, dataclasses.replace(OFF, roll=1.0))["audio/log_mel"].numpy()
    cuts = [
        next(c for c in range(50) if np.allclose(np.roll(was, -c, axis=0), now, atol=1e-5))
        for was, now in zip(before, after, strict=True)
    ]
    assert cuts[1] == 0  # padding
    assert len(set(cuts)) > 3


def test_half_of_the_sounds_are_rolled_at_a_probability_of_one_half():
    features = batch(rows=200)
    tf.random.set_seed(1)
    after = augment(features, dataclasses.replace(OFF, roll=0.5))["audio/log_mel"].numpy()
    moved = np.abs(after - features["audio/log_mel"].numpy()).max(axis=(1, 2)) > 1e-5
    assert 0.3 < moved.mean() < 0.7
