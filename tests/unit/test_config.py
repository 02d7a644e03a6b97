"""The recipe: what it reads, and what it says of what it cannot read."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmm.config import Config, config_from_dict, config_to_dict, load_config
from tfmm.errors import TfmmError

ROOT = Path(__file__).resolve().parents[2]


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_recipe_gives_the_defaults():
    assert load_config(None) == Config()


def test_a_recipe_changes_what_it_names_and_nothing_else(tmp_path: Path):
    config = load_config(recipe(tmp_path, 'name = "shop"\n[tower]\ndim = 32\n'))
    assert config.name == "shop"
    assert config.tower == dataclasses.replace(Config().tower, dim=32)
    assert config.train == Config().train


def test_lists_become_tuples_and_whole_numbers_become_floats(tmp_path: Path):
    config = load_config(
        recipe(tmp_path, "[image]\nchannels = [8, 16]\n[train]\nlearning_rate = 1\n")
    )
    assert config.image.channels == (8, 16)
    assert isinstance(config.train.learning_rate, float)


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.toml")), ids=lambda p: p.name)
def test_a_recipe_of_the_project_loads(path: Path):
    assert load_config(path).name == path.stem


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs=3", 3),
        ("train.epochs = 3", 3),
        ("train.learning_rate=0.01", 0.01),
        ("train.jit_compile=true", True),
        ("train.strategy=cpu", "cpu"),
        ('train.strategy="cpu"', "cpu"),
    ],
)
def test_an_override_takes_toml_or_a_plain_string(override: str, expected: object):
    name = override.split("=", maxsplit=1)[0].strip().removeprefix("train.")
    assert getattr(load_config(None, (override,)).train, name) == expected


def test_an_override_reaches_below_a_table_and_wins_over_the_file(tmp_path: Path):
    path = recipe(tmp_path, "[train.weights]\nclick = 2.0\n")
    config = load_config(path, ("train.weights.click=3.5", "catalogue.text=[]"))
    assert config.train.weights.click == 3.5
    assert config.catalogue.text == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tower = 3", "expected a table, received 3"),
        ("[towers]\ndim = 3", "towers: expected one of "),
        ("[tower]\ndimension = 3", "tower.dimension: expected one of dim, "),
        ("[tower]\ndim = 'wide'", "tower.dim: expected int, received 'wide'"),
        ("[tower]\ndim = true", "tower.dim: expected int, received True"),
        ("[tower]\ndim = 1", "tower.dim: expected 2..4096, received 1"),
        ("[tower]\nfusion = 'sum'", "tower.fusion: expected one of weighted, concat, "),
        ("[tower]\nquery = 'text'", "tower.query: expected a list, received 'text'"),
        ("[tower]\nquery = ['smell']", "tower.query: expected one of text, image, "),
        ("[tower]\nproduct = ['history']", "tower.product: expected text, image, audio"),
        ("[tower]\nquery = []", "tower: expected at least one modality a side"),
        ("[train]\nlearning_rate = '1'", "train.learning_rate: expected float, received '1'"),
        ("[catalogue]\ndefault_k = 2000", "catalogue.default_k: expected 1..1000, received 2000"),
        ("name = '../demo'", "name: expected a folder name, received '../demo'"),
        ("name = ''", "name: expected a folder name"),
        ("name = ", "expected TOML, received: "),
    ],
)
def test_a_wrong_recipe_says_what_was_expected_what_came_and_where(
    tmp_path: Path, text: str, sentence: str
):
    path = recipe(tmp_path, text)
    with pytest.raises(TfmmError) as caught:
        load_config(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_or_not_text_is_named(tmp_path: Path):
    with pytest.raises(TfmmError, match=r"expected a readable TOML file, received .*nowhere"):
        load_config(tmp_path / "nowhere.toml")
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(TfmmError, match="expected TOML"):
        load_config(tmp_path / "recipe.toml")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("train.epochs",), "--set: expected a.b=value, received 'train.epochs'"),
        (("=3",), "--set: expected a.b=value, received '=3'"),
        (("train.seed=3",), "train.seed: expected one of "),
        (("train=3",), "expected a table, received 3"),
        (("train.epochs=3", "train.epochs.more=1"), "expected a table at 'epochs'"),
    ],
)
def test_a_wrong_override_is_refused(overrides: tuple[str, ...], sentence: str):
    with pytest.raises(TfmmError) as caught:
        load_config(None, overrides)
    assert sentence in str(caught.value)


def test_a_recipe_survives_json(tmp_path: Path):
    config = load_config(None, ("train.weights.cart=7", "image.channels=[4,8]"))
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@given(st.text(max_size=20), st.text(max_size=20))
def test_whatever_is_set_either_loads_or_is_refused_in_a_sentence(key: str, value: str):
    try:
        config = load_config(None, (f"{key}={value}",))
    except TfmmError:
        return
    assert isinstance(config, Config)


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().name = "other"  # type: ignore[misc]


def test_a_storage_that_only_the_exact_index_has_is_refused_elsewhere():
    assert load_config(None, ("index.kind=exact", "index.storage=int8")).index.storage == "int8"
    with pytest.raises(
        TfmmError, match=r'index\.storage: expected "float32" with index\.kind = "auto"'
    ):
        load_config(None, ("index.storage=int8",))
