"""What a client raises."""

from __future__ import annotations

from tfmm.errors import TfmmError
from tfmm.serving.status import Code


class ClientError(TfmmError):
    """A query that was not answered, in one sentence.

    Attributes:
      code: The server's code; INVALID_ARGUMENT also for what the client itself refuses to send.
    """

    def __init__(self, message: str, code: Code = Code.INVALID_ARGUMENT) -> None:
        super().__init__(message)
        self.code = code
