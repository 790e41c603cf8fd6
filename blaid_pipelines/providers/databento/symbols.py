"""The forms of Databento's symbols, and their one spelling.

Databento reads some forms in any case. Here a series has one name: another spelling of it would be another series in
the lake, bought a second time.
"""

from __future__ import annotations

import re

from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode

_CONTINUOUS = re.compile(r"[A-Z0-9]{1,6}\.[CNV]\.\d+", re.IGNORECASE)
_PARENT = re.compile(r"[A-Z0-9]{1,6}\.(FUT|OPT|SPOT)", re.IGNORECASE)
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9 .:_!-]{0,70}", re.IGNORECASE)

_CONTRACT = re.compile(r"[A-Z0-9]{1,3}[FGHJKMNQUVXZ]\d{1,2}", re.IGNORECASE)


def check_spelling(symbol: str) -> str:
    """``symbol`` as it is, where that is its one spelling: ``MES.c.0``, ``MES.FUT``, ``MESH4``.

    Raises :class:`InvalidRequest` for ``MES.C.0``, ``MES.c.00``, ``MES.fut``, ``mesh4``, and says how each is
    written. What has none of these forms is somebody else's to judge.
    """
    written = symbol
    if _CONTINUOUS.fullmatch(symbol):
        root, rule, rank = symbol.split(".")
        written = f"{root.upper()}.{rule.lower()}.{int(rank)}"
    elif _PARENT.fullmatch(symbol) or _CONTRACT.fullmatch(symbol):
        written = symbol.upper()
    if written != symbol:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{symbol} is another spelling of {written}",
                f"Write {written}: a series has one name.",
                {"symbol": symbol, "written": written},
            )
        )
    return symbol


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
