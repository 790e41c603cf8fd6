"""Ingest: bars from files into the lake, as a snapshot whose provenance is those files. No external call is made.

Other than a DBN file, a file does not say up to when it answers. Taking its last bar for the end would hold nothing
against it, so the end is where files are cut for a reason: at the close of a session, or at the end of a UTC day. A
file that stops elsewhere, in the middle of a session, is stale, unless whoever gives it names its end.

Bars that Blaid knows as simulated stay simulated when they come back as a file: by what the file says of itself, by
its bytes, or by its content (``lake.segments``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blaid_pipelines.market import contracts
from blaid_pipelines.market.bars import DAY_NS, Bars, bar_nanos, from_ns, to_ns
from blaid_pipelines.market.expiry import expiry_ns
from blaid_pipelines.market.instruments import InstrumentSpec, get_instrument, is_continuous, is_contract
from blaid_pipelines.market.intake.choose import Chosen, Known, choose
from blaid_pipelines.market.intake.files import read_file
from blaid_pipelines.market.intake.reading import BARS, CONTENTS, STAMPS, TIME_UNITS, Ask, FileBars
from blaid_pipelines.market.intake.times import LATEST_NS
from blaid_pipelines.market.lake.files import write_segment
from blaid_pipelines.market.lake.segments import known_as_simulated, record_segments
from blaid_pipelines.market.lake.snapshots import FilePart, Series, create_snapshot, get_snapshot, snapshot_id_of
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode
from blaid_pipelines.store.tables import Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.proof.recorder import CallContext
    from blaid_pipelines.settings import Settings
    from blaid_pipelines.store.database import Store

SOURCE = "file"
MADE_SCHEMAS = ("ohlcv-1m", "ohlcv-1h")
"""Bars that are made from trades or seconds; whose day a daily bar is of is a vendor's own decision."""


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """Files that together hold the bars of ``symbol``, among others perhaps.

    ``stamp`` says where in the bar the files' times sit, ``tz`` the zone of times without one, ``time_unit`` what
    whole numbers for times count: each is refused where a file needs it and it is missing. ``content`` says what the
    files hold: ``bars`` of ``schema``, or ``trades`` or ``ohlcv-1s`` to be made into such. ``dataset`` names the series
    in the lake; by default the DBN file's own, or ``FILE``. ``start`` and ``end`` (exclusive), aware, are the range
    that the files answer for; by default it goes from the first bar to the end that the files say, as DBN files do, or
    to :func:`natural_end` of the last bar.
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
    content: str = BARS


@dataclass(frozen=True)
class IngestResult:
    """The snapshot of the files' bars."""

    snapshot: Snapshot
    bars: int
    files: list[str]


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def ingest(
    store: Store,
    settings: Settings,
    context: CallContext,
    request: IngestRequest,
    clock: Callable[[], datetime] = utc_now,
) -> IngestResult:
    """Read the files, write their bars to the lake, and snapshot them. The same files again give the same snapshot.

    The snapshot is what bots on the series read from now on, also where it is an old one.
    Raises :class:`InvalidRequest` for a request that makes no sense or contradicts the files, :class:`StopAndFix` for
    files that cannot be read or hold no bars.
    """
    spec = get_instrument(store, request.symbol)
    _check_request(request, clock())
    root = spec.symbol
    ask = Ask(
        request.symbol,
        request.schema,
        request.stamp,
        request.tz,
        request.time_unit,
        request.content,
        contracts.names_of_ids(store, root),
        contracts.names_of_ids(store, root, simulated=True),
    )
    read = [read_file(Path(path), ask) for path in request.files]
    known = Known(
        lambda: contracts.open_interest(store, root), lambda near: contracts.known_expiries(store, root, near)
    )
    chosen = choose(read, request.symbol, spec, request.schema, request.content, known)
    bars = chosen.bars
    series = Series(_dataset(request, read), request.schema, request.symbol, spec.symbol)
    start_ns, end_ns = _covered(request, spec, chosen, [file.end for file in read], known)
    provenance = {
        "source": SOURCE,
        "source_key": SOURCE,
        "files": [{"name": file.name, "sha256": file.sha256} for file in read],
        "stamp": request.stamp or "open",
        "tz": request.tz,
        "request_ids": [],
        **({"content": request.content} if request.content != BARS else {}),
        **({"time_unit": request.time_unit} if request.time_unit is not None else {}),
        **chosen.provenance,
    }
    names = [file.name for file in read]
    simulated = any(file.simulated for file in read)
    earlier = _earlier(store, snapshot_id_of(bars.content_hash(), series, start_ns, end_ns, provenance, simulated))
    if not simulated and earlier is None:
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
    request: IngestRequest, spec: InstrumentSpec, chosen: Chosen, ends: Sequence[datetime | None], known: Known
) -> tuple[int, int]:
    """The range that the files answer for: as named, else from the first bar to their own or the natural end.

    The end is that of all bars that the series was stitched from: where it stops before them, it is stale.
    """
    stamps, step = chosen.bars.ts_open, bar_nanos(request.schema)
    first, last = int(stamps.min()), int(stamps.max())
    read_until = max(last, chosen.read_until_ns)
    if first % 1000 or last % 1000 or read_until % 1000:
        raise _invalid(request, "times finer than a microsecond are no bar times")
    start = first if request.start is None else to_ns(request.start)
    own = [to_ns(moment) for moment in ends if moment is not None]
    if request.end is not None:
        end = to_ns(request.end)
    else:
        whole = max(own) if own and len(own) == len(ends) else natural_end(spec.session, read_until, step)
        end = max(read_until + step, min(whole, _trades_until(request, spec, last, known)))
    if not start <= first or not last + step <= end:
        raise _invalid(
            request, f"there are bars from {from_ns(first)} to {from_ns(last + step)}, beyond the range that is named"
        )
    return start, end


def _trades_until(request: IngestRequest, spec: InstrumentSpec, last_ns: int, known: Known) -> int:
    """When one contract stops trading: a file that goes on after that does not miss bars of it."""
    if is_continuous(request.symbol):
        return LATEST_NS
    day = from_ns(last_ns).date()
    defined = known.expiries(day).get(request.symbol)
    if defined is not None:
        return defined
    try:
        return expiry_ns(spec.symbol, request.symbol, day)
    except InvalidRequest:  # a product whose rule is not known: its files are held to their own end
        return LATEST_NS


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


def _check_request(request: IngestRequest, now: datetime) -> None:
    bar_nanos(request.schema)
    if request.stamp not in {None, *STAMPS}:
        raise _invalid(request, f"stamp is {request.stamp!r}, not open or close")
    if request.time_unit not in {None, *TIME_UNITS}:
        raise _invalid(request, f"time unit is {request.time_unit!r}, not {', '.join(TIME_UNITS)}")
    if request.content not in CONTENTS:
        raise _invalid(request, f"content is {request.content!r}, not {', '.join(CONTENTS)}")
    if request.content != BARS and request.schema not in MADE_SCHEMAS:
        raise _invalid(request, f"{request.content} are made into {' or '.join(MADE_SCHEMAS)}, not {request.schema}")
    if not request.files:
        raise _invalid(request, "no file is given")
    if not (is_continuous(request.symbol) or is_contract(request.symbol)):
        raise _invalid(request, "the symbol is neither a contract nor a continuous symbol")
    if any(moment is not None and moment.tzinfo is None for moment in (request.start, request.end)):
        raise _invalid(request, "start and end need a time zone")
    if request.end is not None and request.end > now:
        raise _invalid(request, "the range ends in the future")
    resolved = [Path(path).absolute() for path in request.files]
    if len(set(resolved)) != len(resolved):
        raise _invalid(request, "a file is given twice")


def _invalid(request: IngestRequest, problem: str) -> InvalidRequest:
    return InvalidRequest(
        Reason(
            ReasonCode.INVALID_REQUEST,
            f"cannot ingest {request.symbol}: {problem}",
            "Ask like this: `blaid ingest FILE... --symbol 6EH4 --stamp close --tz UTC`.",
            {"symbol": request.symbol, "stamp": request.stamp, "files": [Path(path).name for path in request.files]},
        )
    )
