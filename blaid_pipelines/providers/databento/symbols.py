"""The forms of Databento's symbols."""

from __future__ import annotations

import re

from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode

_CONTINUOUS = re.compile(r"[A-Z0-9]{1,6}\.[CNV]\.\d+", re.IGNORECASE)
_PARENT = re.compile(r"[A-Z0-9]{1,6}\.(FUT|OPT|SPOT)", re.IGNORECASE)
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9 .:_!-]{0,70}", re.IGNORECASE)


def stype_of(symbol: str) -> str:
    """How Databento names the form of ``symbol``: ``MES.c.0`` continuous, ``MES.FUT`` parent, else raw_symbol.

    Raises :class:`InvalidRequest` for what can be no symbol, also for lists and ``ALL_SYMBOLS``.
    """
    if not _SYMBOL.fullmatch(symbol) or symbol.upper() == "ALL_SYMBOLS":
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{symbol!r} is not one symbol.",
                "Give one symbol: MES.c.0 (continuous), MES.FUT (parent) or a contract such as MESH4.",
                {"symbol": symbol},
            )
        )
    if _CONTINUOUS.fullmatch(symbol):
        return "continuous"
    return "parent" if _PARENT.fullmatch(symbol) else "raw_symbol"
