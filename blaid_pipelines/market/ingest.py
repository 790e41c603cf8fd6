"""Ingest: bars from files into the lake, as a snapshot whose provenance is those files. No external call is made.

Bars that Blaid knows as simulated stay simulated when they come back as a file: by what the file says of itself, by
its bytes, or by the content of any whole day in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blaid_pipelines.market.bars import Bars, bar_nanos
from blaid_pipelines.market.files import FileBars, read_bar_file
from blaid_pipelines.market.instruments import get_instrument, is_continuous, is_contract
from blaid_pipelines.market.lake import write_segment
from blaid_pipelines.market.segments import known_as_simulated, record_segments
from blaid_pipelines.market.snapshots import FilePart, Series, create_snapshot, get_snapshot, snapshot_id_of
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

    ``tz`` is the zone of times without one. ``dataset`` names the series in the lake; by default the DBN file's own,
    or ``FILE``.
    """

    files: Sequence[Path]
    symbol: str
    stamp: str
    tz: str = "UTC"
    schema: str = "ohlcv-1m"
    dataset: str | None = None


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
    _check_request(request)
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
    start_ns, end_ns = int(bars.ts_open[0]), int(bars.ts_open[-1]) + bar_nanos(request.schema)
    if start_ns % 1000 or end_ns % 1000:
        raise _invalid(request, "times finer than a microsecond are no bar times")
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
    if not request.files:
        raise _invalid(request, "no file is given")
    if not (is_continuous(request.symbol) or is_contract(request.symbol)):
        raise _invalid(request, "the symbol is neither a contract nor a continuous symbol")
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
