"""How texts of Latin and Chinese words are cut where queries are made of them."""

from __future__ import annotations

import re

_CHARACTER = r"\u2e80-\u9fff\uf900-\ufaff"
_PIECE = re.compile(rf"[{_CHARACTER}]|[^\s{_CHARACTER}]+")
_CJK = re.compile(rf"[{_CHARACTER}]")


def pieces_of(text: str) -> list[str]:
    """Single Chinese characters, and what else stands between spaces."""
    return [str(piece) for piece in _PIECE.findall(text)]


def has_cjk(text: str) -> bool:
    """Whether a Chinese, Japanese or Korean character is in a text."""
    return bool(_CJK.search(text))
