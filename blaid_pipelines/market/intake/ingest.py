"""Ingest: bars from files into the lake, as a snapshot whose provenance is those files. No external call is made.

Other than a DBN file, a file does not say up to when it answers. Taking its last bar for the end would hold nothing
against it, so the end is where files are cut for a reason: at the close of a session, or at the end of a UTC day. A
file that stops elsewhere, in the middle of a session, is stale, unless whoever gives it names its end.

Bars that Blaid knows as simulated stay simulated when they come back as a file: by what the file says of itself, by
its bytes, or by the content of any whole day in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blaid_pipelines.market.bars import DAY_NS, Bars, bar_nanos, from_ns, to_ns
from blaid_pipelines.market.instruments import InstrumentSpec, get_instrument, is_continuous, is_contract
from blaid_pipelines.market.intake.files import FileBars, read_bar_file
from blaid_pipelines.market.lake.files import write_segment
from blaid_pipelines.market.lake.segments import known_as_simulated, record_segments
from blaid_pipelines.market.lake.snapshots import FilePart, Series, create_snapshot, get_snapshot, snapshot_id_of
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix
from blaid_pipelines.store.tables import Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.proof.recorder import CallContext
    from blaid_pipelines.settings import Settings
    from blaid_pipelines.store.database import Store

SOURCE = "file"
STAMPS = ("open", "close")


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """Files that together hold the bars of ``symbol``; ``stamp`` says where in the bar the files' times sit.

    ``tz`` is the zone of times without one; such times without it are refused. ``dataset`` names the series in the
    lake; by default the DBN file's own, or ``FILE``. ``start`` and ``end`` (exclusive), aware, are the range that the
    files answer for; by default it goes from the first bar to the end that the files say, as DBN files do, or to
    :func:`natural_end` of the last bar.
    """

    files: Sequence[Path]
    symbol: str
    stamp: str | None = None
    tz: str | None = None
    schema: str = "ohlcv-1m"
    dataset: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    time_unit: str | None = None
    content: str = "bars"


@dataclass(frozen=True)
class IngestResult:
    """The snapshot of the files' bars."""

    snapshot: Snapshot
    bars: int
    files: list[str]


def ingest(store: Store, settings: Settings, context: CallContext, request: IngestRequest) -> IngestResult:
    """Read the files, write their bars to the lake, and snapshot them. The same files again give the same snapshot.

    The snapshot is what bots on the series read from now on, also where it is an old one.
    Raises :class:`InvalidRequest` for a request that makes no sense or contradicts the files, :class:`StopAndFix` for
    files that cannot be read or hold no bars.
    """
    spec = get_instrument(store, request.symbol)
    if request.stamp is None and all(".dbn" in Path(path).name for path in request.files):
        request = replace(request, stamp="open")
    _check_request(request)
    assert request.stamp is not None
    read = [
        read_bar_file(Path(path), request.symbol, request.stamp, request.tz, request.schema) for path in request.files
    ]
    bars = Bars.concat(file.bars for file in read)
    if not len(bars):
        raise StopAndFix(
            Reason(
                ReasonCode.DATA_UNAVAILABLE,
                f"the files hold no {request.schema} bars of {request.symbol}",
                "Give files with bars in them.",
                {"files": [file.name for file in read]},
            )
        )
    series = Series(_dataset(request, read), request.schema, request.symbol, spec.symbol)
    start_ns, end_ns = _covered(request, spec, bars, [file.end for file in read])
    provenance = {
        "source": SOURCE,
        "source_key": SOURCE,
        "files": [{"name": file.name, "sha256": file.sha256} for file in read],
        "stamp": request.stamp,
        "tz": request.tz,
        "request_ids": [],
    }
    names = [file.name for file in read]
    simulated = any(file.simulated for file in read)
    known = _earlier(store, snapshot_id_of(bars.content_hash(), series, start_ns, end_ns, provenance, simulated))
    if not simulated and known is None:
        with store.session() as session:
            simulated = known_as_simulated(session, bars, [file.sha256 for file in read])
    parts = _write(store, settings.lake, series, bars, (start_ns, end_ns), provenance, simulated)
    snapshot = create_snapshot(
        store, settings.lake, series, start_ns, end_ns, parts, provenance, simulated, context.trace_id
    )
    return IngestResult(snapshot, len(bars), names)


def natural_end(calendar: str, last_open_ns: int, duration_ns: int) -> int:
    """Where a file whose last bar opens at ``last_open_ns`` ends for a reason, in ns UTC.

    That is the close of the session which the bar lies in, or the end of its UTC day where that comes first: days and
    months of UTC are what vendors cut files by, also in the middle of a session. Never before the bar's own end.
    """
    midnight = (last_open_ns // DAY_NS + 1) * DAY_NS
    sessions = load_sessions(calendar, last_open_ns, last_open_ns + 1)
    closes = [int(close) for close in sessions.close_ns]
    return max(last_open_ns + duration_ns, min([midnight, *closes]))


def _covered(
    request: IngestRequest, spec: InstrumentSpec, bars: Bars, ends: Sequence[datetime | None]
) -> tuple[int, int]:
    """The range that the files answer for: as named, else from the first bar to their own or the natural end."""
    first, last, step = int(bars.ts_open.min()), int(bars.ts_open.max()), bar_nanos(request.schema)
    if first % 1000 or last % 1000:
        raise _invalid(request, "times finer than a microsecond are no bar times")
    start = first if request.start is None else to_ns(request.start)
    own = [to_ns(moment) for moment in ends if moment is not None]
    if request.end is not None:
        end = to_ns(request.end)
    elif own and len(own) == len(ends):
        end = max(last + step, *own)
    else:
        end = natural_end(spec.session, last, step)
    if not start <= first or not last + step <= end:
        raise _invalid(
            request, f"there are bars from {from_ns(first)} to {from_ns(last + step)}, beyond the range that is named"
        )
    return start, end


def _write(
    store: Store,
    lake: Path,
    series: Series,
    bars: Bars,
    span: tuple[int, int],
    provenance: dict[str, Any],
    simulated: bool,
) -> list[FilePart]:
    """Write the bar files and their segment rows."""
    marked = provenance | {"simulated": simulated}
    files = write_segment(lake, series.dataset, series.schema, series.symbol, bars, *span, marked)
    with store.session() as session:
        record_segments(session, series, SOURCE, files, bars, provenance, simulated)
    return [FilePart(file.path, file.sha256, file.start_ns, file.end_ns) for file in files]


def _earlier(store: Store, snapshot_id: str) -> Snapshot | None:
    """The snapshot that these very files gave before, whose provenance then stands."""
    try:
        return get_snapshot(store, snapshot_id)
    except InvalidRequest:
        return None


def _dataset(request: IngestRequest, read: Sequence[FileBars]) -> str:
    if request.dataset is not None:
        return request.dataset
    own = {file.dataset for file in read}
    if len(own) > 1:
        raise _invalid(request, "the files are of different datasets: name one with --dataset")
    return own.pop() or "FILE"


def _check_request(request: IngestRequest) -> None:
    bar_nanos(request.schema)
    if request.stamp not in STAMPS:
        raise _invalid(request, f"stamp is {request.stamp!r}, not open or close")
    if request.content != "bars" or request.time_unit is not None:
        raise _invalid(request, "only files of bars with written times are read")
    if not request.files:
        raise _invalid(request, "no file is given")
    if not (is_continuous(request.symbol) or is_contract(request.symbol)):
        raise _invalid(request, "the symbol is neither a contract nor a continuous symbol")
    if any(moment is not None and moment.tzinfo is None for moment in (request.start, request.end)):
        raise _invalid(request, "start and end need a time zone")
    resolved = [Path(path).absolute() for path in request.files]
    if len(set(resolved)) != len(resolved):
        raise _invalid(request, "a file is given twice")


def _invalid(request: IngestRequest, problem: str) -> InvalidRequest:
    return InvalidRequest(
        Reason(
            ReasonCode.INVALID_REQUEST,
            f"cannot ingest {request.symbol}: {problem}",
            "Ask like this: `blaid ingest FILE --symbol 6EH4 --stamp close --tz UTC`.",
            {"symbol": request.symbol, "stamp": request.stamp, "files": [Path(path).name for path in request.files]},
        )
    )
