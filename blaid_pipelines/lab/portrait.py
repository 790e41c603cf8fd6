"""What a snapshot of bars looks like to a person: its sessions, holes, rolls, first and last bars, JSON-ready.

For event pages and tables. Nothing is judged here: the quality gate has its own measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, Bars, bar_nanos, from_ns, price, to_ns
from blaid_pipelines.market.instruments import InstrumentSpec, get_instrument
from blaid_pipelines.market.lake.snapshots import load_bars
from blaid_pipelines.market.rolls import RollStep, rolls_of
from blaid_pipelines.market.sessions import load_sessions

if TYPE_CHECKING:
    from blaid_pipelines.lab.context import LabContext
    from blaid_pipelines.store.tables import Snapshot

_SHOWN_BARS = 3


@dataclass(frozen=True)
class Portrait:
    """One entry a session with bars in each list: open market without a bar (minutes), and the last price.

    ``expected_minutes`` and ``absent_minutes`` count the whole range, sessions without any bar included.

    ``bars`` are the first and the last few as rows of (time, contract, open, high, low, close, volume); ``rolls`` rows
    of (time, from, to, step of the price, step in ticks, basis).
    """

    session_dates: list[int]
    closes: list[float]
    missing_minutes: list[float]
    expected_minutes: float
    absent_minutes: float
    bars: list[tuple[Any, ...]]
    rolls: list[tuple[Any, ...]]

    @property
    def missing_pct(self) -> float | None:
        """Share of the open market without a bar; None where none was expected."""
        return 100.0 * self.absent_minutes / self.expected_minutes if self.expected_minutes else None


def portrait(
    bars: Bars,
    spec: InstrumentSpec,
    duration_ns: int,
    start_ns: int,
    end_ns: int,
    steps: Sequence[RollStep] | None = None,
) -> Portrait:
    """The portrait of ``bars`` of ``[start_ns, end_ns)``. Bars outside of all sessions are left out of the lists.

    ``steps`` are roll steps that were seen at the same time in both contracts.
    """
    bars = bars.ordered()
    sessions = load_sessions(spec.session, start_ns, end_ns)
    slots, owner, market_ns = sessions.expected_slots(start_ns, end_ns, duration_ns)
    if duration_ns >= DAY_NS:
        owner = np.minimum(np.arange(len(slots), dtype=np.int32), max(len(sessions.session_date) - 1, 0))
    count = len(sessions.session_date)
    present = np.isin(slots, bars.ts_open // duration_ns * duration_ns)
    missing = np.bincount(owner, weights=np.where(present, 0, market_ns), minlength=count) / MINUTE_NS
    closes = np.full(count, np.nan)
    of_bar = sessions.session_of(bars.ts_open) if len(bars) else np.empty(0, np.int32)
    inside = np.flatnonzero(of_bar >= 0)
    # the last assignment wins: bars are in time order
    closes[of_bar[inside]] = bars.close[inside] / 1e9
    traded = np.flatnonzero(np.isfinite(closes))
    return Portrait(
        session_dates=sessions.session_date[traded].tolist(),
        closes=closes[traded].tolist(),
        missing_minutes=missing[traded].tolist() if count else [],
        expected_minutes=float(market_ns.sum()) / MINUTE_NS,
        absent_minutes=float(missing.sum()),
        bars=_rows(bars),
        rolls=[_roll(step, spec) for step in rolls_of(bars, steps)],
    )


def portrait_of(lab: LabContext, snapshot: Snapshot) -> Portrait:
    """The portrait of a snapshot's own bars and range. Raises what :func:`load_bars` raises."""
    bars = load_bars(lab.store, lab.lake, snapshot)
    spec = get_instrument(lab.store, snapshot.instrument)
    span = to_ns(snapshot.range_start), to_ns(snapshot.range_end)
    known = [RollStep.from_json(value) for value in snapshot.provenance.get("rolls", [])]
    return portrait(bars, spec, bar_nanos(snapshot.schema), *span, known)


def _roll(step: RollStep, spec: InstrumentSpec) -> tuple[Any, ...]:
    nanos = step.step_nanos
    size = (None, None) if nanos is None else (_plain(nanos), nanos / spec.tick_nanos)
    return (_time(step.ts_ns), step.from_contract, step.to_contract, *size, step.basis.replace("_", " "))


def _rows(bars: Bars) -> list[tuple[Any, ...]]:
    count = len(bars)
    places = range(count) if count <= 2 * _SHOWN_BARS else [*range(_SHOWN_BARS), *range(count - _SHOWN_BARS, count)]
    return [
        (
            _time(int(bars.ts_open[row])),
            bars.contracts[bars.contract[row]],
            *(_plain(int(getattr(bars, name)[row])) for name in ("open", "high", "low", "close")),
            int(bars.volume[row]),
        )
        for row in places
    ]


def _time(nanos: int) -> str:
    """Date and minute, which stay on one line."""
    return from_ns(nanos).strftime("%Y-%m-%d\u00a0%H:%M")


def _plain(nanos: int) -> str | None:
    """A price without the noughts that nobody reads; None where there is none."""
    value = price(nanos)
    return None if value is None else f"{value.normalize():f}"
