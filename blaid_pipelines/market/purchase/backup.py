"""Bars from the backup provider, for a range that the configured one could not serve; whether that may be is policy's.

Massive knows contracts only, so a continuous series is asked for contract by contract: by expiry (rule ``c``), each for
whole sessions, as the roll calendar has them. Volume and open interest of the past are not known here, and series that
roll by them are refused. Pieces of one snapshot are of one provider: what Databento brought earlier is not mixed in, it
is taken anew. Each segment and the snapshot say what they stand in for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from sqlalchemy import or_, select

from blaid_pipelines.market.bars import MINUTE_NS, Bars, bar_nanos, from_ns, to_ns
from blaid_pipelines.market.instruments import InstrumentSpec, get_instrument, is_contract
from blaid_pipelines.market.lake.assembly import snapshot_of_segments, span_of
from blaid_pipelines.market.lake.composition import DAYS_KEY, days_as_json
from blaid_pipelines.market.lake.files import write_segment
from blaid_pipelines.market.lake.identity import check_lake
from blaid_pipelines.market.lake.segments import record_segments
from blaid_pipelines.market.lake.snapshots import Series, current_head, get_snapshot
from blaid_pipelines.market.locks import NotHad, exclusive, lock_number
from blaid_pipelines.market.purchase.plan import month_spans
from blaid_pipelines.market.purchase.pull import (
    DEFAULT_ATTEMPTS,
    QUIET_MINUTES,
    PullRequest,
    PullResult,
    held_segments,
    utc_now,
)
from blaid_pipelines.market.rolls import has_calendar, parse_continuous, roll_calendar
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.market.spans import Span, overlap, uncovered
from blaid_pipelines.reasons import BlaidError, Reason, ReasonCode, Refused, StopAndFix
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.proof.recorder import CallContext, Recorder
    from blaid_pipelines.providers.massive.client import MassiveRest
    from blaid_pipelines.providers.massive.replies import MassiveBars
    from blaid_pipelines.settings import Settings
    from blaid_pipelines.store.database import Store

BACKUP = "massive"
SERIAL_MONTHS = frozenset({"GC", "MGC", "SI", "6E", "M6E"})
"""Roots with contracts of further months beside the instrument's own (CME lists the nearest serial ones): Databento's
rule ``c`` takes each of these in turn, and our calendar of them is not complete."""
STILL_COMING = timedelta(days=1)
"""A delayed answer about a range that ended less than this long ago may lack its newest bars."""


def pull_backup(
    store: Store,
    settings: Settings,
    recorder: Recorder,
    context: CallContext,
    request: PullRequest,
    primary_error: BlaidError,
    progress: Callable[[str], None] | None = None,
    clock: Callable[[], datetime] = utc_now,
    *,
    attempts: int = DEFAULT_ATTEMPTS,
) -> PullResult:
    """Bring the range into the lake from Massive and snapshot it; nothing missing: no call.

    Where the range touches what bots on the series read now, whatever its source, the snapshot covers both: a stand-in
    must not leave a bot with less history than it had. ``primary_error`` is why the configured provider did not serve.

    Raises :class:`InvalidRequest` (no bar schema of Massive's), :class:`Refused` (``ROLL_RULE_UNAVAILABLE``,
    ``ALREADY_RUNNING``), :class:`StopAndFix` (``DATA_UNAVAILABLE``) and what the client raises.
    """
    say = progress or (lambda _: None)
    spec = get_instrument(store, request.symbol)
    key = f"{BACKUP}:{settings.massive_url}"
    check_lake(store, settings.lake)
    wanted = _extended(store, request)
    runs = contract_runs(spec, request.symbol, wanted)
    stands_in_for = _stands_in_for(store, context, primary_error)
    job = _Backup(store, settings, spec, request, key, stands_in_for, clock)
    try:
        with exclusive(store, lock_number("pull", request.dataset, request.schema, request.symbol, key)):
            held = held_segments(store, settings.lake, request, key)
            missing = uncovered(wanted, [span_of(entry) for entry in held])
            reused = sum(overlap(span_of(entry), wanted) for entry in held)
            client = _client(settings, recorder, context, attempts) if missing else None
            pulled, ends = 0, wanted[1]
            if client is not None:
                say(f"{request.symbol}: Databento failed ({primary_error.reason.code.value}); asking Massive instead")
                pulled, ends = job.pull(client, missing, runs, say)
                held = held_segments(store, settings.lake, request, key)
            snapshot = job.snapshot((wanted[0], min(ends, wanted[1])), held, context.trace_id)
    except NotHad as error:
        raise _under_way(request) from error
    return PullResult(
        snapshot=snapshot,
        request_ids=[] if client is None else list(client.succeeded),
        cost_usd=Decimal(0),
        bars_pulled=pulled,
        missing_ranges=[(from_ns(left), from_ns(right)) for left, right in missing],
        reused_segments=reused,
        ends_at=from_ns(ends) if ends < wanted[1] else None,
    )


def contract_runs(spec: InstrumentSpec, symbol: str, wanted: Span) -> list[tuple[str, Span]]:
    """Which contract ``symbol`` stands for when, over all of ``wanted``: one run a contract, cut between sessions.

    A contract stands for itself. Raises :class:`Refused` (``ROLL_RULE_UNAVAILABLE``) for a series that does not roll by
    expiry, or whose root has no expiry rule or is one of :data:`SERIAL_MONTHS`: another contract would stand in.
    """
    if is_contract(symbol):
        return [(symbol, wanted)]
    root, rule, rank = parse_continuous(symbol)
    if rule != "c" or not has_calendar(root) or root in SERIAL_MONTHS:
        unknown = "its serial months are not known" if root in SERIAL_MONTHS else "no expiry rule is known for it"
        why = "rolls by " + {"v": "volume", "n": "open interest"}.get(rule, f"expiry, and {unknown}")
        raise Refused(
            Reason(
                ReasonCode.ROLL_RULE_UNAVAILABLE,
                f"{symbol} {why}: which contracts to ask Massive for is not known",
                "Use a series by expiry of a root whose months are all known (ES.c.0), a single contract, or wait for "
                "Databento.",
                {"symbol": symbol, "rule": rule, "root": root},
            )
        )
    first, last = from_ns(wanted[0]), from_ns(wanted[1])
    calendar = roll_calendar(root, spec.contract_months, first.year - 1, last.year + 2)
    sessions = load_sessions(spec.session, wanted[0], wanted[1])
    runs: list[tuple[str, Span]] = []
    for number, yyyymmdd in enumerate(sessions.session_date.tolist()):
        day = date(yyyymmdd // 10_000, yyyymmdd // 100 % 100, yyyymmdd % 100)
        lead = next(at for at, roll in enumerate(calendar) if roll.roll_session > day)
        contract = calendar[lead + rank].contract
        if not runs:
            runs.append((contract, wanted))
        elif runs[-1][0] != contract:
            turn = int(sessions.open_ns[number])
            runs[-1] = (runs[-1][0], (runs[-1][1][0], turn))
            runs.append((contract, (turn, wanted[1])))
    if not runs:
        raise _no_bars(symbol, wanted, 0)
    return runs


def bars_of_massive(found: MassiveBars) -> Bars:
    """Bars as Massive sent them; its sentinels are those of :mod:`~blaid_pipelines.market.bars`."""
    columns = (found.ts_open, found.open, found.high, found.low, found.close, found.volume)
    return Bars(*columns, np.zeros(len(found), np.int32), (found.ticker,)) if len(found) else Bars.empty()


@dataclass(frozen=True)
class _Backup:
    """One pull from the backup under its lock."""

    store: Store
    settings: Settings
    spec: InstrumentSpec
    request: PullRequest
    key: str
    stands_in_for: dict[str, Any]
    clock: Callable[[], datetime]

    def pull(
        self, client: MassiveRest, missing: Sequence[Span], runs: Sequence[tuple[str, Span]], say: Callable[[str], None]
    ) -> tuple[int, int]:
        """Take what is missing, month by month and contract by contract; returns bars and where they end (ns)."""
        count, ends = 0, max(right for _, (_, right) in runs)
        pieces = [
            (contract, piece)
            for gap in missing
            for contract, run in runs
            if overlap(gap, run)
            for piece in month_spans((max(gap[0], run[0]), min(gap[1], run[1])), 1)
        ]
        for contract, piece in pieces:
            bars, covered = self._take(client, contract, piece)
            count += bars
            name = f"{from_ns(piece[0]):%Y-%m-%d %H:%M} to {from_ns(piece[1]):%Y-%m-%d %H:%M} UTC"
            say(f"{self.request.symbol}: {contract}, {name}: {bars:,} bars from Massive")
            if covered < piece[1]:
                return count, covered
        return count, ends

    def _take(self, client: MassiveRest, contract: str, piece: Span) -> tuple[int, int]:
        request = self.request
        found, ids = client.get_bars(contract, request.schema, from_ns(piece[0]), from_ns(piece[1]))
        bars = bars_of_massive(found)
        end = self._covered(found, bars, piece)
        if end == piece[0]:  # nothing is said of this range yet: it stays missing
            return 0, end
        self._check(bars, piece)
        provenance = {
            "source": BACKUP,
            "source_key": self.key,
            "simulated": found.simulated,
            "request_ids": [str(request_id) for request_id in ids],
            "contract": contract,
            "fallback_for": self.stands_in_for,
        }
        where = (self.settings.lake, request.dataset, request.schema, request.symbol)
        files = write_segment(*where, bars, piece[0], end, provenance)
        series = Series(request.dataset, request.schema, request.symbol, self.spec.symbol)
        with self.store.session() as session:
            for file in files:
                days = days_as_json(bars.slice(file.start_ns, file.end_ns).days())
                record_segments(
                    session, series, self.key, [file], bars, {**provenance, DAYS_KEY: days}, found.simulated
                )
        return len(bars), end

    def _covered(self, found: MassiveBars, bars: Bars, piece: Span) -> int:
        """Where the answer's word ends: at the last bar, where it is delayed and may lack what came after."""
        if not found.delayed or from_ns(piece[1]) < self.clock() - STILL_COMING:
            return piece[1]
        return int(bars.ts_open[-1]) + bar_nanos(self.request.schema) if len(bars) else piece[0]

    def _check(self, bars: Bars, piece: Span) -> None:
        """Refuse silence while the market was open."""
        if len(bars):
            return
        sessions = load_sessions(self.spec.session, *piece)
        _, _, market_ns = sessions.expected_slots(*piece, bar_nanos(self.request.schema))
        open_minutes = int(market_ns.sum()) // MINUTE_NS
        if open_minutes > QUIET_MINUTES:
            raise _no_bars(self.request.symbol, piece, open_minutes)

    def snapshot(self, wanted: Span, held: Sequence[LakeSegment], trace_id: str) -> Snapshot:
        """The snapshot of ``wanted`` over the backup's own segments."""
        request = self.request
        series = Series(request.dataset, request.schema, request.symbol, self.spec.symbol)
        provenance = {"source": BACKUP, "source_key": self.key, "fallback_for": self.stands_in_for}
        made = snapshot_of_segments(self.store, self.settings.lake, series, wanted, held, provenance, trace_id)
        if made is None:
            raise _no_bars(request.symbol, wanted, 0)
        return made


def _extended(store: Store, request: PullRequest) -> Span:
    """The range asked for, together with that of the series' head where they touch."""
    wanted = to_ns(request.start), to_ns(request.end)
    head = current_head(store, request.symbol, request.schema)
    if head is None or head.dataset != request.dataset:
        return wanted
    snapshot = get_snapshot(store, head.snapshot_id)
    start, end = to_ns(snapshot.range_start), to_ns(snapshot.range_end)
    if wanted[1] < start or end < wanted[0]:
        return wanted
    return min(start, wanted[0]), max(end, wanted[1])


def _stands_in_for(store: Store, context: CallContext, error: BlaidError) -> dict[str, Any]:
    """Why, for the provenance: the failure, and the calls of this job that met it."""
    query = (
        select(ProviderRequest.id)
        .where(
            ProviderRequest.trace_id == context.trace_id,
            ProviderRequest.provider != BACKUP,
            or_(ProviderRequest.success.is_(False), ProviderRequest.success.is_(None)),
        )
        .order_by(ProviderRequest.created_at, ProviderRequest.id)
    )
    with store.session() as session:
        failed: list[UUID] = list(session.scalars(query))
    return {
        "source": "databento",
        "code": error.reason.code.value,
        "message": error.reason.message[:500],
        "request_ids": [str(request_id) for request_id in failed],
    }


def _client(settings: Settings, recorder: Recorder, context: CallContext, attempts: int) -> MassiveRest:
    from blaid_pipelines.providers.massive.client import MassiveRest

    return MassiveRest(settings, recorder, context, max_attempts=attempts)


def _under_way(request: PullRequest) -> Refused:
    return Refused(
        Reason(
            ReasonCode.ALREADY_RUNNING,
            f"another pull of {request.symbol} {request.schema} from Massive is under way",
            "Wait for it to end; the bars that it brings will not be asked for again.",
            {"symbol": request.symbol, "schema": request.schema},
        )
    )


def _no_bars(symbol: str, span: Span, open_minutes: int) -> StopAndFix:
    return StopAndFix(
        Reason(
            ReasonCode.DATA_UNAVAILABLE,
            f"{symbol}: Massive has no bars in this range",
            "Check symbol and dates, and how far back the plan reaches; a contract trades only before it expires.",
            {
                "symbol": symbol,
                "start": from_ns(span[0]).isoformat(),
                "end": from_ns(span[1]).isoformat(),
                "open_market_minutes": open_minutes,
            },
        )
    )
