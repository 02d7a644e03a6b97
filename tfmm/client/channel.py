"""One connection to a model server: options, credentials, deadlines, and tries again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tfmm.client.error import ClientError
from tfmm.client.messages import MESSAGES
from tfmm.errors import sentence_of
from tfmm.serving.status import Code

_SERVICE = "/tensorflow.serving.PredictionService/"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_KEEPALIVE_TIMEOUT_MS = 20_000


@dataclass(frozen=True)
class Tls:
    """How a server is known, and how it knows its client.

    Attributes:
      ca: PEM certificates of the authorities to trust, a file or its bytes; None for the system's.
      key: PEM private key of the client, for a server that wants one.
      certificate: PEM certificate chain of the client.
      server_name: The name in the server's certificate, where it is not the one in the address.
    """

    ca: str | Path | bytes | None = None
    key: str | Path | bytes | None = None
    certificate: str | Path | bytes | None = None
    server_name: str = ""


class Channel:
    """Calls methods of PredictionService."""

    def __init__(
        self, address: str, *, timeout_s: float, tls: Tls | None, keepalive_s: float
    ) -> None:
        self._address, self._timeout_s = address, timeout_s
        # Photos and long answers are larger than gRPC's 4 MiB. A server that restarts is found
        # again within seconds. Some routers drop connections that are silent, and TCP itself
        # notices a dead machine after minutes only.
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.keepalive_time_ms", round(keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if tls is None:
            self._channel = grpc.insecure_channel(address, options)
            return
        if tls.server_name:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        try:
            credentials = grpc.ssl_channel_credentials(
                _pem(tls.ca), _pem(tls.key), _pem(tls.certificate)
            )
        except OSError as error:
            raise ClientError(f"tls: expected a readable PEM file, received: {error}") from error
        self._channel = grpc.secure_channel(address, credentials, options)

    def deadline(self) -> float:
        """When a call that begins now has to end, on the monotonic clock."""
        return time.monotonic() + self._timeout_s

    def call(self, method: str, request: Any, end: float) -> Any:
        """Calls a method; while nobody answers (UNAVAILABLE) again, until the deadline `end`.

        Pauses grow twofold from 50 ms to 2 s, and each is drawn between 0 and that, so that
        clients that lost the same server do not come back all at once.

        Raises:
          ClientError: It failed, with the server's code.
        """
        reply = MESSAGES[f"{method}Response"]
        stub = self._channel.unary_unary(
            _SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        longest_s = _FIRST_PAUSE_S
        while True:
            try:
                return stub(request, timeout=max(0.001, end - time.monotonic()))
            except grpc.RpcError as error:
                pause_s = random.uniform(0, longest_s)
                if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() + pause_s >= end:
                    raise self._failed(error, request.model_spec.name) from error
            except ValueError as error:  # grpc's word for a channel that is closed
                raise ClientError(f"{self._address}: {error}", Code.CANCELLED) from error
            time.sleep(pause_s)
            longest_s = min(2 * longest_s, _LONGEST_PAUSE_S)

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        self._channel.close()

    def _failed(self, error: Any, model: str) -> ClientError:
        code = Code(error.code().value[0])
        details = " ".join(sentence_of(error.details() or "").split())
        match code:
            case Code.INVALID_ARGUMENT:
                text = details
            case Code.NOT_FOUND:
                text = f"{self._address}: expected a server of model {model!r}, received: {details}"
            case Code.UNAVAILABLE:
                text = f"{self._address}: expected a model server, received: {details}"
            case Code.DEADLINE_EXCEEDED:
                seconds = f"{self._timeout_s:g} s"
                text = f"{self._address}: expected an answer within {seconds}, received none"
            case _:
                text = f"{self._address}: expected an answer, received {code.name}: {details}"
        return ClientError(text, code)


def _pem(given: str | Path | bytes | None) -> bytes | None:
    return given if given is None or isinstance(given, bytes) else Path(given).read_bytes()
