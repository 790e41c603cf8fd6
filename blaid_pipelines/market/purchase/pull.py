"""Pulling bars from Databento: only the ranges that the lake does not hold, only within the budget, then a snapshot.

Each missing range is priced before it is bought, written to the lake, and recorded as a segment in its own
transaction, so that an interrupted pull resumes where it stopped. Coverage counts per source: what a local gateway
served never stands in for what Databento would. The calls themselves are the client's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import select, text

from blaid_pipelines.ids import sha256_hex
from blaid_pipelines.market.bars import MINUTE_NS, Bars, bar_nanos, bars_of_dbn, from_ns, to_ns
from blaid_pipelines.market.instruments import InstrumentSpec, get_instrument, is_continuous, is_contract
from blaid_pipelines.market.lake.files import write_segment
from blaid_pipelines.market.lake.segments import record_segments
from blaid_pipelines.market.lake.snapshots import FilePart, Series, create_snapshot, current_head, get_snapshot
from blaid_pipelines.market.purchase.budget import PROVIDER, lock_number, price_spans, purchase_lock
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.market.spans import Span, overlap, uncovered
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, Refused, StopAndFix
from blaid_pipelines.store.tables import LakeSegment, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.proof.recorder import CallContext, Recorder
    from blaid_pipelines.providers.budget import DataBudget
    from blaid_pipelines.providers.databento.client import DatabentoHistorical
    from blaid_pipelines.settings import Settings
    from blaid_pipelines.store.database import Store

QUIET_MINUTES = 60
"""Most open-market minutes for which an empty answer is believed: a thin contract may not trade for that long."""


@dataclass(frozen=True, slots=True)
class PullRequest:
    """Bars of ``symbol`` that open in ``[start, end)``; aware datetimes on whole bar intervals."""

    symbol: str
    start: datetime
    end: datetime
    schema: str = "ohlcv-1m"
    dataset: str = "GLBX.MDP3"


@dataclass(frozen=True)
class PullResult:
    """The snapshot of the whole range, and what this pull itself did for it.

    ``request_ids`` are this pull's calls that were answered; the snapshot's provenance cites all calls behind its bars.
    """

    snapshot: Snapshot
    request_ids: list[UUID]
    cost_usd: Decimal
    bars_pulled: int
    missing_ranges: list[tuple[datetime, datetime]]
    reused_segments: int


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def pull(
    store: Store,
    settings: Settings,
    recorder: Recorder,
    budget: DataBudget,
    context: CallContext,
    request: PullRequest,
    progress: Callable[[str], None] | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> PullResult:
    """Bring a range of a series into the lake and snapshot it. Nothing missing: no call, the same snapshot.

    A pull extends the series: where its range touches what bots on the series read from this source already, the
    snapshot covers both, so that a day more is a day more and a part of what is there changes nothing. The snapshot is
    what bots read from now on.

    Raises :class:`InvalidRequest` for a request that makes no sense, :class:`Refused` for the budget
    (``COST_BUDGET_EXCEEDED``, ``COST_UNKNOWN``) or a pull of the same series under way (``ALREADY_RUNNING``; a purchase
    of another series is waited for),
    :class:`StopAndFix` (``DATA_UNAVAILABLE``) where the exchange was open and nothing came, and what the client raises.
    """
    say = progress or (lambda _: None)
    spec = get_instrument(store, request.symbol)
    wanted = _check_request(request, clock())
    key = f"{PROVIDER}:{settings.databento_url}"
    with _series_lock(store, request, key):
        wanted = _extended(store, request, key, wanted)
        segments = [entry for entry in _segments(store, request, key) if _intact(settings.lake, entry)]
        missing = uncovered(wanted, [_span(entry) for entry in segments])
        reused = sum(1 for entry in segments if overlap(_span(entry), wanted))
        cost, pulled, request_ids = Decimal(0), 0, []
        if missing:
            from blaid_pipelines.providers.databento.client import DatabentoHistorical

            client = DatabentoHistorical(settings, recorder, context)
            with purchase_lock(store, say):
                quotes = price_spans(store, client, budget, request, missing, clock)
                cost = sum(quotes, Decimal(0))
                for span, quote in zip(missing, quotes, strict=True):
                    say(f"{request.symbol}: {from_ns(span[0]):%Y-%m-%d %H:%M} to {from_ns(span[1]):%Y-%m-%d %H:%M} UTC")
                    known = bool(segments or pulled)
                    pulled += _pull_span(store, settings, client, spec, request, key, span, quote, known)
            request_ids = list(client.succeeded)
            segments = [entry for entry in _segments(store, request, key) if _intact(settings.lake, entry)]
        snapshot = _snapshot(store, settings.lake, spec, request, wanted, segments, key, context)
    return PullResult(
        snapshot, request_ids, cost, pulled, [(from_ns(left), from_ns(right)) for left, right in missing], reused
    )


def _extended(store: Store, request: PullRequest, key: str, wanted: Span) -> Span:
    """``wanted``, together with the range of the series' head where that is of the same source and touches it."""
    head = current_head(store, request.symbol, request.schema)
    if head is None or (head.dataset, head.source_key) != (request.dataset, key):
        return wanted
    snapshot = get_snapshot(store, head.snapshot_id)
    start, end = to_ns(snapshot.range_start), to_ns(snapshot.range_end)
    if wanted[1] < start or end < wanted[0]:
        return wanted
    return min(start, wanted[0]), max(end, wanted[1])


def _check_request(request: PullRequest, now: datetime) -> Span:
    step = bar_nanos(request.schema)
    problem = None
    if request.start.tzinfo is None or request.end.tzinfo is None:
        problem = "start and end need a time zone"
    elif not is_continuous(request.symbol) and not is_contract(request.symbol):
        problem = f"{request.symbol} is neither a contract nor a continuous symbol"
    elif request.start >= request.end:
        problem = "start is not before end"
    elif request.end > now:
        problem = "the range ends in the future"
    elif to_ns(request.start) % step or to_ns(request.end) % step:
        problem = f"start and end must lie on whole {request.schema} bars"
    if problem is not None:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"cannot pull {request.symbol}: {problem}",
                "Ask like this: `blaid pull MES.c.0 --schema ohlcv-1m --start 2024-01-02 --end 2024-02-01`.",
                {"symbol": request.symbol, "start": request.start.isoformat(), "end": request.end.isoformat()},
            )
        )
    return to_ns(request.start), to_ns(request.end)


@contextmanager
def _series_lock(store: Store, request: PullRequest, key: str) -> Iterator[None]:
    """One pull of a series at a time: two would buy the same bars twice. The lock ends with its connection."""
    number = lock_number("pull", request.dataset, request.schema, request.symbol, key)
    with store.engine.connect() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:number)"), {"number": number}):
            raise Refused(
                Reason(
                    ReasonCode.ALREADY_RUNNING,
                    f"another pull of {request.symbol} {request.schema} is under way",
                    "Wait for it to end; the bars that it brings will not be asked for again.",
                    {"symbol": request.symbol, "schema": request.schema},
                )
            )
        connection.commit()
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": number})
            connection.commit()


def _segments(store: Store, request: PullRequest, key: str) -> list[LakeSegment]:
    query = (
        select(LakeSegment)
        .where(
            LakeSegment.dataset == request.dataset,
            LakeSegment.schema == request.schema,
            LakeSegment.symbol == request.symbol,
            LakeSegment.source_key == key,
        )
        .order_by(LakeSegment.range_start, LakeSegment.created_at, LakeSegment.id)
    )
    with store.session() as session:
        return list(session.scalars(query))


def _intact(lake: Path, segment: LakeSegment) -> bool:
    """False for a segment whose file is gone or changed: its range counts as missing and is pulled again."""
    try:
        return sha256_hex((lake / segment.path).read_bytes()) == segment.file_sha256
    except OSError:
        return False


def _span(segment: LakeSegment) -> Span:
    return to_ns(segment.range_start), to_ns(segment.range_end)


def _pull_span(
    store: Store,
    settings: Settings,
    client: DatabentoHistorical,
    spec: InstrumentSpec,
    request: PullRequest,
    key: str,
    span: Span,
    quote: Decimal,
    series_has_bars: bool,
) -> int:
    """Buy one range, write it to the lake, record it; returns the bars in it."""
    dbn, ids = client.get_bars(request.dataset, request.symbol, request.schema, from_ns(span[0]), from_ns(span[1]))
    bars = bars_of_dbn(dbn).ordered()
    _check_answer(request, spec, span, bars, series_has_bars)
    simulated = settings.databento_simulated or dbn.simulated
    provenance: dict[str, Any] = {
        "source": PROVIDER,
        "source_key": key,
        "simulated": simulated,
        "request_ids": [str(request_id) for request_id in ids],
    }
    files = write_segment(
        settings.lake, request.dataset, request.schema, request.symbol, bars, span[0], span[1], provenance
    )
    series = Series(request.dataset, request.schema, request.symbol, spec.symbol)
    with store.session() as session:
        kept = provenance | {"cost_usd": str(quote)}
        record_segments(session, series, key, files, bars, kept, simulated)
    return len(bars)


def _check_answer(request: PullRequest, spec: InstrumentSpec, span: Span, bars: Bars, series_has_bars: bool) -> None:
    """Refuse an answer of another range, with unnamed contracts, or empty while the market was open."""
    numbers: dict[str, Any] = {
        "symbol": request.symbol,
        "start": from_ns(span[0]).isoformat(),
        "end": from_ns(span[1]).isoformat(),
        "bars": len(bars),
    }
    if len(bars) and not (bars.ts_open[0] >= span[0] and bars.ts_open[-1] < span[1]):
        raise StopAndFix(
            Reason(
                ReasonCode.BAD_RESPONSE,
                f"{request.symbol}: the provider sent bars outside the range that was asked for",
                "Pull again; report it to the provider with the request ids if it stays.",
                numbers,
            )
        )
    unnamed = [name for name in bars.contracts if name.startswith("#")]
    if unnamed:
        raise StopAndFix(
            Reason(
                ReasonCode.PARTIAL_RESOLUTION,
                f"{request.symbol}: the provider did not name the contracts behind some bars",
                "Pull again; a series whose rolls are not known cannot be used.",
                {**numbers, "instrument_ids": unnamed},
            )
        )
    if len(bars):
        return
    sessions = load_sessions(spec.session, span[0], span[1])
    _, _, market_ns = sessions.expected_slots(span[0], span[1], bar_nanos(request.schema))
    open_minutes = int(market_ns.sum()) // MINUTE_NS
    if not series_has_bars or open_minutes > QUIET_MINUTES:
        raise StopAndFix(
            Reason(
                ReasonCode.DATA_UNAVAILABLE,
                f"{request.symbol}: the provider has no {request.schema} bars in this range",
                "Check symbol and dates: a contract trades only for some months before it expires.",
                {**numbers, "open_market_minutes": open_minutes},
            )
        )


def _snapshot(
    store: Store,
    lake: Path,
    spec: InstrumentSpec,
    request: PullRequest,
    wanted: Span,
    segments: Sequence[LakeSegment],
    key: str,
    context: CallContext,
) -> Snapshot:
    """The snapshot of ``wanted`` over the segments, oldest first where they overlap."""
    parts: list[FilePart] = []
    used: list[LakeSegment] = []
    for segment in sorted(segments, key=lambda entry: (entry.created_at, entry.range_start, entry.id)):
        left, right = _span(segment)
        clipped = (max(left, wanted[0]), min(right, wanted[1]))
        if clipped[0] >= clipped[1]:
            continue
        free = uncovered(clipped, [(part.start_ns, part.end_ns) for part in parts])
        parts += [FilePart(segment.path, segment.file_sha256, start, end) for start, end in free]
        if free:
            used.append(segment)
    parts.sort(key=lambda part: part.start_ns)
    request_ids = dict.fromkeys(value for segment in used for value in segment.provenance["request_ids"])
    provenance = {"source": PROVIDER, "source_key": key, "request_ids": list(request_ids)}
    series = Series(request.dataset, request.schema, request.symbol, spec.symbol)
    simulated = any(segment.simulated for segment in used)
    return create_snapshot(store, lake, series, *wanted, parts, provenance, simulated, context.trace_id)
