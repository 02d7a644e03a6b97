"""Configurations that nobody would write: refused, and the one in force goes on."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from grpc import StatusCode
from nonsense import damaged
from serving_models import save_half_plus
from serving_process import Server, running
from tensorflow_serving.apis import model_management_pb2

from tfmm.serving.status import ServingError
from tfmm.serving.text_protos import read_text_proto

RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
UNREADABLE = (StatusCode.INTERNAL, "Exception deserializing request!")
REFUSED = {StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION}
# A legal configuration is in force although its models do not come, or do not load.
TAKEN_OVER = {StatusCode.OK, StatusCode.UNKNOWN, StatusCode.DEADLINE_EXCEEDED, StatusCode.NOT_FOUND}
GOOD = """
model_config_list {{
  config {{
    name: "half" base_path: "{path}" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: "stable" value: 1 }}
  }}
}}
"""


@dataclass(frozen=True)
class Bad:
    """What kind of nonsense it is, and the bytes of a ReloadConfigRequest."""

    kind: str
    content: bytes


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configured") / "half"
    save_half_plus(folder / "1", 2.0)
    save_half_plus(folder / "2", 3.0)
    return folder


@pytest.fixture(scope="module")
def configured(half: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose configuration file is read again every second; it is `server.config`."""
    file = tmp_path_factory.mktemp("config") / "models.pbtxt"
    file.write_text(GOOD.format(path=half))
    with running(
        f"--model_config_file={file}",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models",
        "--max_num_load_retries=0",
    ) as server:
        server.config = file
        server.wait_for_states("half", {1: "AVAILABLE", 2: "AVAILABLE"})
        yield server


def good(half: Path) -> model_management_pb2.ReloadConfigRequest:
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(GOOD.format(path=half), request.config)
    return request


def goes_on(server: Server) -> bool:
    """Whether both versions and the label answer as in the good configuration."""
    x = {"x": [2.0]}
    newest, stable = server.predict("half", x), server.predict("half", x, label="stable")
    return float(newest["y"][0]) == 4.0 and float(stable["y"][0]) == 3.0


# --- over gRPC -----------------------------------------------------------------------------------


def nonsense(half: Path, count: int, seed: int) -> Iterator[Bad]:
    """Always the same requests for the same seed."""
    chance = random.Random(seed)
    kinds: list[Callable[[random.Random, Path], Bad]] = [
        random_bytes, mutated, odd_model, odd_model, odd_model, twice, another_kind, labels,
        a_change,
    ]  # fmt: skip
    for number in range(count):
        yield kinds[number % len(kinds)](chance, half)


def random_bytes(chance: random.Random, half: Path) -> Bad:
    del half
    return Bad("random bytes", chance.randbytes(chance.choice((0, 1, 5, 50, 500))))


def mutated(chance: random.Random, half: Path) -> Bad:
    return Bad("mutated", damaged(chance, good(half).SerializeToString()))


def odd_model(chance: random.Random, half: Path) -> Bad:
    """One more model, with something in it that cannot be."""
    request = good(half)
    model = request.config.model_config_list.config.add(name="more", base_path="/no/such/folder")
    model.model_platform = "tensorflow"
    match chance.randrange(6):
        case 0:
            model.name = chance.choice(("half", "half", "", "\x00", "\u202e", "x" * 100_000))
            model.base_path = chance.choice(("", "a/b"))
        case 1:
            model.base_path = chance.choice(("", "relative", "./a", "~/a", "s3:/bucket", "\x00"))
        case 2:
            model.model_platform = chance.choice(("", "caffe", "TensorFlow", "x" * 10_000))
        case 3:
            model.model_type = chance.choice((1, 2))
        case 4:
            model.model_platform = ""
            model.model_type = chance.choice((0, 2))
        case _:
            model.name = "half"
    return Bad("odd model", request.SerializeToString())


def twice(chance: random.Random, half: Path) -> Bad:
    request = good(half)
    model = request.config.model_config_list.config[0]
    for _ in range(chance.choice((1, 2, 300))):
        request.config.model_config_list.config.add().CopyFrom(model)
    return Bad("twice", request.SerializeToString())


def another_kind(chance: random.Random, half: Path) -> Bad:
    del half
    request = model_management_pb2.ReloadConfigRequest()
    if chance.random() < 0.7:
        request.config.custom_model_config.type_url = chance.choice(("", "a/b", "\x00"))
        request.config.custom_model_config.value = chance.randbytes(9)
    return Bad("another kind", request.SerializeToString())


def labels(chance: random.Random, half: Path) -> Bad:
    """The label in use on a version that is not there."""
    request = good(half)
    model = request.config.model_config_list.config[0]
    model.version_labels["stable"] = chance.choice((0, 3, -1, (1 << 63) - 1, -(1 << 63)))
    return Bad("labels", request.SerializeToString())


def a_change(chance: random.Random, half: Path) -> Bad:
    """Now and then a legal configuration with models that never come, or no models at all."""
    request = good(half)
    models = request.config.model_config_list.config
    match chance.randrange(60):
        case 0:
            del models[:]
        case 1:
            models[0].model_version_policy.latest.num_versions = chance.choice(
                (0, 1, (1 << 32) - 1)
            )
            models[0].version_labels.clear()
        case 2:
            odd = ("/proc", "/dev/null", "/\x00", "/" + "x" * 9000, "/proc/self/environ", "//", "/")
            models[0].base_path = chance.choice(odd)
            models[0].name = chance.choice(("", "a\nb", "half2", "\u202e"))
        case 3:
            models[0].model_version_policy.specific.versions.append(chance.choice((7, -1, 0)))
        case _:
            models[0].model_platform = "caffe"
    return Bad("a change", request.SerializeToString())


def threads(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_nonsense_configuration_is_refused_and_the_old_one_goes_on(
    configured: Server, half: Path, count: int
):
    call = configured.channel.unary_unary(RELOAD, lambda content: content, lambda content: content)
    proper = good(half)
    # The file must not put things right in the meantime: what is empty changes nothing.
    configured.config.write_text("")
    configured.models.HandleReloadConfigRequest(proper, 120)
    before = threads(configured.process.pid)
    seen: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    for number, bad in enumerate(nonsense(half, count, seed=count)):
        code, details = StatusCode.OK, ""
        try:
            call(bad.content, timeout=0.5)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
        seen[bad.kind, code.name] += 1
        if code in TAKEN_OVER:
            configured.models.HandleReloadConfigRequest(proper, 120)
            configured.wait_for_states("half", {1: "AVAILABLE", 2: "AVAILABLE"})
        elif not ((code in REFUSED and details) or (code, details) == UNREADABLE):
            faults.append(f"{bad.kind}: {code.name}: {details}\n{bad.content[:400]!r}")
        elif number % 10 == 0 and not goes_on(configured):
            faults.append(f"{bad.kind}: changed what is served\n{bad.content[:400]!r}")
    assert not faults, f"{len(faults)} of {count}, the first: " + "\n".join(faults[:5])
    assert configured.process.poll() is None
    assert goes_on(configured)
    refused = sum(number for (_, code), number in seen.items() if StatusCode[code] in REFUSED)
    assert refused > count // 2, seen
    # Neither models that were dropped nor calls that were given up leave a thread behind.
    assert threads(configured.process.pid) < before + 150, seen


# --- in a file -----------------------------------------------------------------------------------

TEXT = b"""
# Models of the shop.
model_config_list: {
  config: {
    name: "half", base_path: "/a/b", model_platform: 'tensorflow'
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
    logging_config { sampling_config { sampling_rate: 0.5 } }
  }
  config { name: "b\\x41\\101" base_path: "/c" model_type: TENSORFLOW }
}
"""
WORDS = (
    b"{", b"}", b"model_config_list", b"custom_model_config", b"config", b":", b'"', b"'", b"\\x",
    b"[type.googleapis.com/tensorflow.serving.ModelServerConfig]", b"\\uD800", b"\\U00110000",
    b"inf", b"-", b"1e999", b"9" * 30, b"<", b">", b"[", b"]", b",", b";", b"#", b"\x00", b"\xff",
    b"version_labels", b"value", b"key", b"name", b"any", b"{" * 3000, b"\xef\xbb\xbf",
)  # fmt: skip


def texts(count: int, seed: int) -> Iterator[bytes]:
    """Files that are half written, damaged, or of words that do not belong together."""
    chance = random.Random(seed)
    for number in range(count):
        match number % 4:
            case 0:
                yield TEXT[: chance.randrange(len(TEXT))]
            case 1:
                yield damaged(chance, TEXT)
            case 2:
                yield b" ".join(chance.choices(WORDS, k=chance.randint(1, 12)))
            case _:
                at = chance.randrange(len(TEXT))
                yield TEXT[:at] + chance.choice(WORDS) + TEXT[at + chance.randint(0, 6) :]


# What Python thinks of a bad escape sequence is protobuf's business.
@pytest.mark.filterwarnings("ignore:.*invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_file_is_a_configuration_or_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
):
    file = tmp_path / "models.pbtxt"
    outcomes: Counter[str] = Counter()
    for text in texts(count, seed=count):
        file.write_bytes(text)
        try:
            outcomes[type(read_text_proto("ModelServerConfig", str(file))).__name__] += 1
        except ServingError as error:
            outcomes[error.message] += 1
    assert capsys.readouterr().err.count("Error parsing text-format") > count // 2
    assert set(outcomes) == {"ModelServerConfig", f"Invalid protobuf file: '{file}'"}
    assert 0 < outcomes["ModelServerConfig"] < count // 2


def test_a_file_in_the_middle_of_being_written_changes_nothing(configured: Server, half: Path):
    file, text = configured.config, GOOD.format(path=half).encode()
    said = "Could not take over"
    # Written in place, and read in the middle of it.
    for content in (text[:8], text[: len(text) // 2], text[:-3], b"\xff\xfe\x00"):
        before = configured.log.read_text().count(said)
        file.write_bytes(content)
        end = time.monotonic() + 60
        while configured.log.read_text().count(said) == before:
            assert time.monotonic() < end, content
            assert goes_on(configured)
            time.sleep(0.1)
    file.write_bytes(text)
    assert goes_on(configured)


def test_a_file_whose_model_never_comes_can_be_put_right(configured: Server, half: Path):
    file, text = configured.config, GOOD.format(path=half)
    late = f'config {{ name: "late" base_path: "{half}-late" model_platform: "tensorflow" }} }}'
    file.write_text(text.rstrip().removesuffix("}") + late)
    end = time.monotonic() + 60
    while f"Could not find base path {half}-late" not in configured.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    # "late" is still waited for, and the file is read again all the same.
    file.write_text(text.replace('name: "half"', 'name: "again"'))
    configured.wait_for_states("again", {1: "AVAILABLE", 2: "AVAILABLE"})
    configured.wait_for_states("half", {1: "END", 2: "END"})
    file.write_text(text)
    configured.wait_for_states("half", {1: "AVAILABLE", 2: "AVAILABLE"})
