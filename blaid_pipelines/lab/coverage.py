"""What the lake holds of each series against what the exchange calendar says was open: one row a session.

Pure functions over a snapshot's bars, and the cache that keeps a warehouse build fast: a snapshot never changes, so its
numbers are computed once for each version of the calendar's code. The quality gate judges with measures of its own;
a test holds both to the same minutes. Nothing is decided here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on

import blaid_pipelines.market as market
from blaid_pipelines.ids import fingerprint, sha256_hex
from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, MISSING_VOLUME, Bars, bar_nanos, to_ns
from blaid_pipelines.market.instruments import get_instrument
from blaid_pipelines.market.lake.snapshots import load_bars
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.reasons import Refused, StopAndFix
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import SeriesHead, Snapshot

COVERAGE_VERSION = "coverage-1"
"""Changes with the meaning of a column; numbers of another version are computed again."""

Int64 = npt.NDArray[np.int64]
_TIME = pa.timestamp("us", tz="UTC")

SESSION_SCHEMA = pa.schema(
    [
        ("snapshot_id", pa.string()),
        ("session_date", pa.date32()),
        ("session_open", _TIME),
        ("session_close", _TIME),
        ("bars", pa.int64()),
        ("expected_minutes", pa.float64()),
        ("present_minutes", pa.float64()),
        ("gaps", pa.int64()),
        ("longest_gap_minutes", pa.float64()),
        ("first_bar", _TIME),
        ("last_bar", _TIME),
        ("volume", pa.int64()),
        ("contracts", pa.string()),  # in the order of the clock, a comma between
    ]
)
"""One row per snapshot and session that shares open market with the snapshot's range, or holds bars of it."""

READING_SCHEMA = pa.schema(
    [
        ("snapshot_id", pa.string()),
        ("bars_in_sessions", pa.int64()),
        ("bars_outside", pa.int64()),
        ("reason_code", pa.string()),
        ("reason_message", pa.string()),
    ]
)
"""One row per snapshot looked at: how its bars fall, or why they cannot be read."""


@dataclass(frozen=True)
class Coverage:
    """What was found of some snapshots: tables of :data:`SESSION_SCHEMA` and :data:`READING_SCHEMA`."""

    sessions: pa.Table
    readings: pa.Table


def session_coverage(snapshot_id: str, bars: Bars, calendar: str, duration_ns: int, span_ns: tuple[int, int],
                     as_of_ns: int) -> Coverage:  # fmt: skip
    """Coverage of one snapshot with ``bars`` of the range ``span_ns``, as known at ``as_of_ns`` (int64 ns UTC).

    A minute is expected where the market was open by ``calendar``, inside the range, and not after ``as_of_ns``. Daily
    bars belong to UTC days: there each day is a session. A gap is an unbroken stretch of expected time without a bar.
    """
    bars = bars.ordered()
    start_ns, end_ns = span_ns
    known_end = max(start_ns, min(end_ns, as_of_ns))
    low = min(start_ns, int(bars.ts_open[0])) if len(bars) else start_ns
    high = max(end_ns, int(bars.ts_open[-1]) + duration_ns) if len(bars) else end_ns
    sessions = load_sessions(calendar, low, high)
    slots, slot_owner, market_ns = sessions.expected_slots(start_ns, known_end, duration_ns)
    if duration_ns >= DAY_NS:
        days = np.unique(np.concatenate([slots, bars.ts_open // DAY_NS * DAY_NS]))
        opens, closes, dates = days, days + DAY_NS, days // DAY_NS
        slot_owner = np.searchsorted(days, slots).astype(np.int32)
        owner = np.searchsorted(days, bars.ts_open // DAY_NS * DAY_NS).astype(np.int32)
    else:
        opens, closes, dates = sessions.open_ns, sessions.close_ns, _days(sessions.session_date)
        owner = sessions.session_of(bars.ts_open)
    present = np.isin(slots, bars.ts_open // duration_ns * duration_ns)
    inside = bars.take(owner >= 0)
    owner = owner[owner >= 0]
    rows = []
    for index in np.union1d(slot_owner, owner):
        mine, held = _run(slot_owner, index), inside.take(_run(owner, index))
        rows.append(
            {
                "snapshot_id": snapshot_id,
                "session_date": int(dates[index]),
                "session_open": int(opens[index]) // 1000,
                "session_close": int(closes[index]) // 1000,
                "bars": len(held),
                "expected_minutes": int(market_ns[mine].sum()) / MINUTE_NS,
                "present_minutes": int(market_ns[mine][present[mine]].sum()) / MINUTE_NS,
                **_gaps(present[mine], market_ns[mine]),
                "first_bar": int(held.ts_open[0]) // 1000 if len(held) else None,
                "last_bar": int(held.ts_open[-1]) // 1000 if len(held) else None,
                "volume": int(held.volume[held.volume != MISSING_VOLUME].sum()),
                "contracts": ",".join(held.contracts[code] for code in dict.fromkeys(held.contract.tolist())),
            }
        )
    reading = {
        "snapshot_id": snapshot_id,
        "bars_in_sessions": len(inside),
        "bars_outside": len(bars) - len(inside),
    }
    return Coverage(_table(rows, SESSION_SCHEMA), _table([reading], READING_SCHEMA))


def _run(ascending: npt.NDArray[np.int32], value: int) -> slice:
    return slice(*np.searchsorted(ascending, [value, value + 1]).tolist())


def _gaps(present: npt.NDArray[np.bool_], market_ns: Int64) -> dict[str, Any]:
    edges = np.flatnonzero(np.diff(np.concatenate([[True], present, [True]]).astype(np.int8)))
    lengths = [int(market_ns[left:right].sum()) for left, right in pairwise(edges)][::2]
    return {"gaps": len(lengths), "longest_gap_minutes": max(lengths, default=0) / MINUTE_NS}


def _days(yyyymmdd: npt.NDArray[np.int32]) -> Int64:
    """Days since 1970 of dates written as numbers."""
    text = yyyymmdd.astype("U8")
    return np.array([f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in text], "datetime64[D]").astype(np.int64)


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.table({name: pa.array([row.get(name) for row in rows], schema.field(name).type) for name in schema.names})


def head_coverage(store: Store, lake: Path, cache: Path) -> Coverage:
    """Coverage of every series' head, read from ``cache`` where it is known, else computed and kept there.

    A head whose files are not what was written, or whose hours are not known, has no rows of sessions and says why in
    its reading.
    """
    found = [_of_snapshot(store, lake, cache, snapshot) for snapshot in _heads(store)]
    return Coverage(
        pa.concat_tables([SESSION_SCHEMA.empty_table(), *(one.sessions for one in found)]),
        pa.concat_tables([READING_SCHEMA.empty_table(), *(one.readings for one in found)]),
    )


def _heads(store: Store) -> list[Snapshot]:
    newest = (
        select(SeriesHead.snapshot_id)
        .ext(distinct_on(SeriesHead.symbol, SeriesHead.schema))
        .order_by(SeriesHead.symbol, SeriesHead.schema, SeriesHead.created_at.desc(), SeriesHead.id.desc())
    )
    with store.session() as session:
        found = list(session.scalars(select(Snapshot).where(Snapshot.snapshot_id.in_(newest))))
        session.expunge_all()
    return sorted(found, key=lambda snapshot: (snapshot.symbol, snapshot.schema))


def _of_snapshot(store: Store, lake: Path, cache: Path, snapshot: Snapshot) -> Coverage:
    spec = get_instrument(store, snapshot.instrument)
    key = fingerprint([COVERAGE_VERSION, snapshot.snapshot_id, spec.session, _calendar_version()])[:32]
    kept = [cache / f"{key}.{part}.parquet" for part in ("sessions", "reading")]
    if all(path.is_file() for path in kept):
        try:
            known = Coverage(pq.read_table(kept[0]), pq.read_table(kept[1]))
        except (pa.ArrowException, OSError):
            known = None  # spoilt: computed again
        if known is not None and (known.sessions.schema, known.readings.schema) == (SESSION_SCHEMA, READING_SCHEMA):
            return known
    try:
        bars = load_bars(store, lake, snapshot)
        span = (to_ns(snapshot.range_start), to_ns(snapshot.range_end))
        made = session_coverage(
            snapshot.snapshot_id, bars, spec.session, bar_nanos(snapshot.schema), span, to_ns(snapshot.created_at)
        )
    except (Refused, StopAndFix) as error:  # a damaged lake, hours that nobody knows: a finding, and it may be mended
        reason = error.reason
        row = {
            "snapshot_id": snapshot.snapshot_id,
            "reason_code": reason.code.value,
            "reason_message": reason.message,
        }
        return Coverage(SESSION_SCHEMA.empty_table(), _table([row], READING_SCHEMA))
    cache.mkdir(parents=True, exist_ok=True)
    for path, table in zip(kept, (made.sessions, made.readings), strict=True):
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        pq.write_table(table, temporary)
        temporary.replace(path)
    return made


def _calendar_version() -> str:
    """What decides the hours: the calendar package and our own modules of sessions, by their source."""
    folder = Path(market.__file__).parent
    sources = [(folder / name).read_bytes() for name in ("sessions.py", "hours.py") if (folder / name).is_file()]
    return f"{version('pandas_market_calendars')}-{sha256_hex(b''.join(sources))}"
