"""Longer bars from finer rows: trades, or one-second bars, into bars of a wanted length. Pure; no file is read here.

A bar opens with its first trade and closes with its last, in time order and, among trades of one moment, in the order
in which the file gives them. No row is ever dropped for being equal to another: one order that sweeps the book prints
many equal trades, and each is volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.bars import MISSING, MISSING_VOLUME, NOT_FINITE, PRICES, Bars
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


def trade_rows(ts: Int64, price: Int64, size: Int64, contract: Int32, contracts: tuple[str, ...]) -> Bars:
    """Trades as rows of bars: each one's open, high, low and close are its price. Order is kept."""
    return Bars(ts, price, price, price, price, size, contract, contracts)


def join(parts: Sequence[Bars]) -> Bars:
    """All rows of all parts, one part after another: unlike ``Bars.concat``, nothing is reordered."""
    kept = [part for part in parts if len(part)]
    if not kept:
        return Bars.empty()
    names = sorted({name for part in kept for name in part.contracts})
    codes = [
        np.array([names.index(name) for name in part.contracts], np.int32)[part.contract].astype(np.int32)
        for part in kept
    ]
    columns = (np.concatenate([getattr(part, name) for part in kept]) for name in ("ts_open", *PRICES, "volume"))
    ts, o, h, lo, c, v = columns
    return Bars(ts, o, h, lo, c, v, np.concatenate(codes), tuple(names))


def check_rows(name: str, rows: Bars, *, seconds: bool) -> None:
    """Refuse rows that would vanish inside a longer bar, where no gate could see them any more.

    Raises :class:`StopAndFix`: ``FIELD_MISSING`` or ``VALUE_NOT_FINITE`` for a price, ``VOLUME_INVALID`` for a size
    that is no count, and for one-second bars ``DUPLICATE_KEY`` for a second that comes twice.
    """
    prices = np.stack([getattr(rows, column) for column in PRICES])
    volume = rows.volume
    for bad, code, what in (
        ((prices == MISSING).any(axis=0), ReasonCode.FIELD_MISSING, "no price"),
        ((prices == NOT_FINITE).any(axis=0), ReasonCode.VALUE_NOT_FINITE, "a price that is no number"),
        (volume == MISSING_VOLUME, ReasonCode.VOLUME_INVALID, "no whole number for its volume"),
        (volume < 0, ReasonCode.VOLUME_INVALID, "a negative volume"),
    ):
        if bad.any():
            raise _bad_row(name, code, what, bad)
    if seconds and len(rows):
        order = np.lexsort((rows.ts_open, rows.contract))
        ts, contract = rows.ts_open[order], rows.contract[order]
        twice = np.zeros(len(rows), bool)
        twice[order[1:]] = (ts[1:] == ts[:-1]) & (contract[1:] == contract[:-1])
        if twice.any():
            raise _bad_row(name, ReasonCode.DUPLICATE_KEY, "the second of another row", twice)


def check_overlap(parts: Sequence[tuple[str, Bars]]) -> None:
    """Refuse files whose rows of one contract overlap in time: their trades would count twice.

    Files that meet in one moment are fine. Raises :class:`InvalidRequest`.
    """
    spans: dict[str, list[tuple[int, int, str]]] = {}
    for name, rows in parts:
        for code in np.unique(rows.contract):
            ts = rows.ts_open[rows.contract == code]
            spans.setdefault(rows.contracts[code], []).append((int(ts.min()), int(ts.max()), name))
    for contract, found in spans.items():
        found.sort()
        for (_, end, left), (start, _, right) in pairwise(found):
            if start < end:
                raise InvalidRequest(
                    Reason(
                        ReasonCode.INVALID_REQUEST,
                        f"{left} and {right} overlap in time: trades of {contract} in both would count twice",
                        "Give files that follow one another.",
                        {"files": [left, right], "contract": contract, "starts_ns": start, "ends_ns": end},
                    )
                )


def longer_bars(rows: Bars, duration_ns: int) -> Bars:
    """Bars of ``duration_ns``, aligned to the epoch, from rows that :func:`check_rows` found sound."""
    if not len(rows):
        return Bars.empty()
    ts, contract = rows.ts_open, rows.contract
    one_contract = bool((contract == contract[0]).all())
    if not (one_contract and bool((ts[1:] >= ts[:-1]).all())):
        rows = rows.take(np.lexsort((ts, contract)))  # stable: rows of one moment stay as the file has them
        ts, contract = rows.ts_open, rows.contract
    slot = ts // duration_ns
    new = (slot[1:] != slot[:-1]) | (contract[1:] != contract[:-1])
    first = np.concatenate([[0], np.flatnonzero(new) + 1])
    last = np.concatenate([first[1:], [len(rows)]]) - 1
    return Bars(
        slot[first] * duration_ns,
        rows.open[first],
        np.maximum.reduceat(rows.high, first),
        np.minimum.reduceat(rows.low, first),
        rows.close[last],
        np.add.reduceat(rows.volume, first),
        contract[first],
        rows.contracts,
    ).ordered()


def _bad_row(name: str, code: ReasonCode, what: str, bad: npt.NDArray[Any]) -> StopAndFix:
    row = int(np.argmax(bad)) + 1
    return StopAndFix(
        Reason(
            code,
            f"{name} has {what} in row {row}: a bar made of it would hide that",
            "Correct the file, or take bars from the vendor instead of making them.",
            {"file": name, "row": row, "rows": int(bad.sum())},
        )
    )
