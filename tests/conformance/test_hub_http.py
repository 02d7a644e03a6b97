"""Modules over http, from a server on the loopback interface."""

import gc
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_miniatures
import numpy as np
import pytest

import tfmm  # noqa: F401
from tfmm.errors import TfmmError

tf = pytest.importorskip("tensorflow")

from tfmm.towers import hub  # noqa: E402

# tensorflow_hub leaves the connection of an answer that it cannot use to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def no_connection_is_left() -> Iterator[None]:
    """Collects what a test leaves here, where it is known, and not in whichever test comes next."""
    yield
    gc.collect()


class Server:
    """Answers `/<name>?tf-hub-format=compressed` with bytes; anything else is not found."""

    def __init__(self) -> None:
        self.archives: dict[str, bytes] = {}
        self.requests: list[str] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.requests.append(self.path)
                name, _, query = self.path.lstrip("/").partition("?")
                body = owner.archives.get(name) if query == "tf-hub-format=compressed" else None
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A saved feature-vector module as a .tar.gz, SavedModel at the top."""
    folder = tmp_path_factory.mktemp("module") / "saved"
    hub_miniatures.save(hub_miniatures.FeatureVector(), folder)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
    return buffer.getvalue()


def test_a_module_is_downloaded_once_and_trains(server: Server, archive: bytes):
    server.archives["photos/1"] = archive
    handle = f"{server.address}/photos/1"
    layer = hub.load(handle, trainable=True)
    assert server.requests == ["/photos/1?tf-hub-format=compressed"]
    pixels = tf.constant(np.full((2, 4, 4, 3), 0.5, np.float32))
    expected = 0.5 * hub_miniatures.FeatureVector().kernel.numpy().sum(axis=0)
    np.testing.assert_allclose(layer(pixels), [expected, expected], rtol=1e-5)
    assert len(layer.trainable_weights) == 1
    hub.load(handle, trainable=False)
    assert len(server.requests) == 1


def test_a_handle_that_says_compressed_itself_works_too(server: Server, archive: bytes):
    server.archives["photos"] = archive
    path = hub.resolve(f"{server.address}/photos?tf-hub-format=compressed")
    assert tf.saved_model.contains_saved_model(path)
    assert all("compressed" in request for request in server.requests)


def test_not_found_is_one_sentence(server: Server):
    handle = f"{server.address}/nothing"
    with pytest.raises(TfmmError, match="can be downloaded") as caught:
        hub.resolve(handle)
    assert handle in str(caught.value)
    assert "404" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["a web page", "cut short"])
def test_a_broken_archive_is_one_sentence_and_leaves_nothing(
    server: Server, archive: bytes, fault: str
):
    broken = b"<html>not here</html>" if fault == "a web page" else archive[: len(archive) // 2]
    server.archives["module"] = broken
    handle = f"{server.address}/module"
    with pytest.raises(TfmmError, match="can be downloaded") as caught:
        hub.resolve(handle)
    assert handle in str(caught.value)
    assert "\n" not in str(caught.value)
    server.archives["module"] = archive
    assert tf.saved_model.contains_saved_model(hub.resolve(handle))


def test_an_archive_without_a_saved_model_is_said_to_be_so(server: Server):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo("README.txt")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"hi"))
    server.archives["module"] = buffer.getvalue()
    with pytest.raises(TfmmError, match="expected a SavedModel in the archive"):
        hub.resolve(f"{server.address}/module")


def test_an_unreachable_server_is_one_sentence(server: Server):
    address = server.address
    server.close()
    with pytest.raises(TfmmError, match=r"can be downloaded.*refused") as caught:
        hub.resolve(f"{address}/module")
    assert "\n" not in str(caught.value)
