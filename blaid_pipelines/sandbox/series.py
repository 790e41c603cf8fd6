"""Series of one-minute bars that the gateway serves, and how bars of other lengths are made from them.

A series knows the contract behind each bar and the UTC dates on which each contract leads, so that symbology answers
and record ids cannot disagree. Where the bars come from is elsewhere: ``synthetic`` and ``files``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt

from blaid_pipelines.providers.databento.dbn import BAR_NANOS, MISSING_PRICE
from blaid_pipelines.sandbox.contracts import Lead

I64 = npt.NDArray[np.int64]
MINUTE = BAR_NANOS["ohlcv-1m"]
DAY = BAR_NANOS["ohlcv-1d"]
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, eq=False)
class Series:
    """Bars of one symbol (``MES.c.0``, or a contract such as ``6EH4``), in the order in which they are served.

    ``ts_open`` in nanoseconds UTC, prices in units of 1e-9 (``MISSING_PRICE`` where undefined), ``instrument_id`` as in
    the matching lead. ``leads`` cover the series without overlap.
    """

    dataset: str
    symbol: str
    schema: str
    ts_open: I64
    open: I64
    high: I64
    low: I64
    close: I64
    volume: I64
    instrument_id: I64
    leads: tuple[Lead, ...]

    def __len__(self) -> int:
        return len(self.ts_open)

    @property
    def available(self) -> tuple[int, int]:
        """First and last (exclusive) nanosecond the series answers for: whole UTC days."""
        return utc_nanos(self.leads[0].start), utc_nanos(self.leads[-1].end)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Series:
        """The same series with the given rows (mask or indices)."""
        columns = ("ts_open", *PRICES, "volume", "instrument_id")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def between(self, start: int, end: int) -> Series:
        """The bars with ``start <= ts_open < end``."""
        return self.take((self.ts_open >= start) & (self.ts_open < end))

    def resampled(self, schema: str) -> Series:
        """Bars of another length: one per contract and period that saw a trade, days being UTC days.

        A price that is missing in any minute is missing in the longer bar, where it would have decided it.
        """
        step = BAR_NANOS[schema]
        if schema == self.schema or not len(self):
            return replace(self, schema=schema)
        order = np.lexsort((self.ts_open, self.instrument_id))
        ids, period = self.instrument_id[order], self.ts_open[order] // step * step
        starts = np.flatnonzero(np.r_[True, (ids[1:] != ids[:-1]) | (period[1:] != period[:-1])])
        lasts = np.r_[starts[1:], len(order)] - 1
        longer = replace(
            self,
            schema=schema,
            ts_open=period[starts],
            open=self.open[order][starts],
            high=_extreme(np.maximum, self.high[order], starts),
            low=np.minimum.reduceat(self.low[order], starts),
            close=self.close[order][lasts],
            volume=np.add.reduceat(self.volume[order], starts),
            instrument_id=ids[starts],
        )
        return longer.take(np.argsort(longer.ts_open, kind="stable"))


def _extreme(pick: np.ufunc, values: I64, starts: npt.NDArray[np.intp]) -> I64:
    missing = np.maximum.reduceat((values == MISSING_PRICE).astype(np.int8), starts).astype(bool)
    found = pick.reduceat(values, starts).astype(np.int64)
    found[missing] = MISSING_PRICE
    return found


def lead_ids(ts_open: I64, leads: tuple[Lead, ...]) -> I64:
    """The instrument id of the lead on each bar's UTC date; bars outside of every lead raise ``ValueError``."""
    ids = np.zeros(len(ts_open), dtype=np.int64)
    for lead in leads:
        ids[(ts_open >= utc_nanos(lead.start)) & (ts_open < utc_nanos(lead.end))] = lead.instrument_id
    if (ids == 0).any():
        raise ValueError("bars lie outside of the lead contracts' dates")
    return ids


def utc_nanos(day: date) -> int:
    """Midnight UTC of ``day`` in nanoseconds."""
    return (day - date(1970, 1, 1)).days * DAY


def utc_day(nanos: int) -> date:
    """The UTC date of a time in nanoseconds."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=nanos // 1_000_000_000)).date()
