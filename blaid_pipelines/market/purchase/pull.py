"""Pulling bars from Databento: only the ranges that the lake does not hold, only within the budget, then a snapshot.

What is missing is cut at UTC month turns (``plan``). Each month is bought in a call of its own, written to the lake and
recorded as a segment in its own transaction, several at a time, so that an interrupted pull resumes where it stopped:
what was recorded is not asked for again, and neither is what was paid for and not recorded yet (``spool``). Coverage
counts per source: what a local gateway served never stands in for what Databento would. The calls themselves are the
client's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import select

from blaid_pipelines.market.bars import MINUTE_NS, Bars, bar_nanos, bars_of_dbn, from_ns, to_ns
from blaid_pipelines.market.instruments import InstrumentSpec, get_instrument, is_continuous, is_contract
from blaid_pipelines.market.lake.assembly import snapshot_of_segments, span_of
from blaid_pipelines.market.lake.composition import DAYS_KEY, days_as_json
from blaid_pipelines.market.lake.files import write_segment
from blaid_pipelines.market.lake.identity import check_lake
from blaid_pipelines.market.lake.segments import record_segments
from blaid_pipelines.market.lake.snapshots import Series, current_head, get_snapshot
from blaid_pipelines.market.lake.verified import VerifiedFiles
from blaid_pipelines.market.locks import NotHad, exclusive, lock_number
from blaid_pipelines.market.purchase.budget import PROVIDER, Allowance, purchase_lock
from blaid_pipelines.market.purchase.limits import DEFAULT_LIMITS, PullLimits, pace_of
from blaid_pipelines.market.purchase.plan import PullPlan, Purchase, in_parallel, plan_pull
from blaid_pipelines.market.purchase.spool import Spool
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.market.spans import Span, overlap, uncovered
from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode, Refused, StopAndFix
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.proof.recorder import CallContext, Recorder
    from blaid_pipelines.providers.budget import DataBudget
    from blaid_pipelines.providers.databento.client import DatabentoHistorical, Resolved
    from blaid_pipelines.providers.databento.dbn import DbnBars
    from blaid_pipelines.settings import Settings
    from blaid_pipelines.store.database import Store

DEFAULT_ATTEMPTS = 3
"""Attempts at one call, the first included, for callers that have no policy at hand."""

_DATASET = re.compile(r"[A-Z0-9]{1,16}\.[A-Z0-9]{1,16}")
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
    ``quoted_usd`` is what was asked for beforehand, ``cost_usd`` what was spent: the quotes of what was bought, and
    once more those of calls that had to be made again and may have been billed. ``months_pulled`` counts purchases,
    ``months_recovered`` those that an interrupted pull had paid for. ``ends_at`` is where the provider's data ends, if
    that is before the end that was asked for.
    """

    snapshot: Snapshot
    request_ids: list[UUID]
    cost_usd: Decimal
    bars_pulled: int
    missing_ranges: list[tuple[datetime, datetime]]
    reused_segments: int
    quoted_usd: Decimal = Decimal(0)
    spent_today_usd: Decimal | None = None
    months_pulled: int = 0
    months_recovered: int = 0
    ends_at: datetime | None = None


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
    *,
    limits: PullLimits = DEFAULT_LIMITS,
    attempts: int = DEFAULT_ATTEMPTS,
) -> PullResult:
    """Bring a range of a series into the lake and snapshot it. Nothing missing: no call, the same snapshot.

    A pull extends the series: where its range touches what bots on the series read from this source already, the
    snapshot covers both, so that a day more is a day more and a part of what is there changes nothing. The snapshot is
    what bots read from now on. ``progress`` is told what it costs before, each month, and what it cost after;
    ``attempts`` bounds the attempts at one call.

    Raises :class:`InvalidRequest` for a request that makes no sense, :class:`Refused` for the budget
    (``COST_BUDGET_EXCEEDED``, ``COST_UNKNOWN``), a pull of the same series under way (``ALREADY_RUNNING``; a purchase
    of another series is waited for) or a lake of another database (``LAKE_MISMATCH``), :class:`StopAndFix`
    (``DATA_UNAVAILABLE``) where the exchange was open and nothing came, and what the client raises. A month that fails
    stops new ones; those under way end and are recorded, and a second reason (``PULL_INCOMPLETE``) says what is there.
    """
    say = progress or (lambda _: None)
    spec = get_instrument(store, request.symbol)
    wanted = check_request(request, clock())
    key = f"{PROVIDER}:{settings.databento_url}"
    check_lake(store, settings.lake)
    with _series_lock(store, request, key):
        job = _Pull(store, settings, spec, request, key, say, clock)
        wanted = _extended(store, request, key, wanted)
        client = _client(settings, recorder, context, limits, attempts)
        recovered = job.recover(client)
        held = job.held()
        missing = uncovered(wanted, [span_of(entry) for entry in held])
        reused = sum(1 for entry in held if overlap(span_of(entry), wanted))
        done = _Done()
        if missing:
            with purchase_lock(store, say):
                plan = plan_pull(store, client(), budget, limits, request, missing, clock)
                wanted = _within_the_data(wanted, plan, held, say)
                done = job.buy(client(), plan, limits)
            held = job.held()
        snapshot = job.snapshot(wanted, held, context.trace_id)
    return PullResult(
        snapshot=snapshot,
        request_ids=list(client().succeeded) if missing or recovered else [],
        cost_usd=done.cost,
        bars_pulled=done.bars,
        missing_ranges=[(from_ns(left), from_ns(right)) for left, right in (plan.missing if missing else [])],
        reused_segments=reused,
        quoted_usd=plan.position.quoted if missing else Decimal(0),
        spent_today_usd=plan.position.spent_today + done.cost if missing else None,
        months_pulled=done.months,
        months_recovered=recovered,
        ends_at=from_ns(plan.ends_ns) if missing and plan.ends_ns is not None else None,
    )


def quote_pull(
    store: Store,
    settings: Settings,
    recorder: Recorder,
    budget: DataBudget,
    context: CallContext,
    request: PullRequest,
    clock: Callable[[], datetime] = utc_now,
    *,
    limits: PullLimits = DEFAULT_LIMITS,
    attempts: int = DEFAULT_ATTEMPTS,
) -> tuple[PullPlan | None, list[UUID]]:
    """What :func:`pull` of the same arguments would buy now, and the calls that said so (free); None: nothing.

    Nothing is bought or written, and a budget that would not allow it is said in the plan, not raised.
    """
    get_instrument(store, request.symbol)
    wanted = check_request(request, clock())
    key = f"{PROVIDER}:{settings.databento_url}"
    check_lake(store, settings.lake)
    wanted = _extended(store, request, key, wanted)
    held = held_segments(store, settings.lake, request, key)
    # What was paid for already is recovered by the pull, not bought.
    paid = [_asked(reply.request) for reply in Spool(settings.lake, key).paid_for(store, request)]
    missing = uncovered(wanted, [*(span_of(entry) for entry in held), *paid])
    if not missing:
        return None, []
    client = _client(settings, recorder, context, limits, attempts)()
    plan = plan_pull(store, client, budget, limits, request, missing, clock)
    return plan, list(client.succeeded)


def _client(
    settings: Settings, recorder: Recorder, context: CallContext, limits: PullLimits, attempts: int
) -> Callable[[], DatabentoHistorical]:
    """Makes the client when it is first needed: a pull that calls nobody needs no key."""
    made: list[DatabentoHistorical] = []

    def client() -> DatabentoHistorical:
        if not made:
            from blaid_pipelines.providers.databento.client import DatabentoHistorical

            made.append(
                DatabentoHistorical(
                    settings,
                    recorder,
                    context,
                    deadline_s=limits.call_deadline_s,
                    max_attempts=attempts,
                    pace=pace_of(settings.databento_url, limits.requests_per_second),
                )
            )
        return made[0]

    return client


def _within_the_data(wanted: Span, plan: PullPlan, held: Sequence[LakeSegment], say: Callable[[str], None]) -> Span:
    """``wanted`` up to where the provider's data ends, unless the lake holds more than that."""
    if plan.ends_ns is None or plan.ends_ns >= wanted[1]:
        return wanted
    ends = max([plan.ends_ns, *(span_of(entry)[1] for entry in held if overlap(span_of(entry), wanted))])
    say(f"the provider's data ends at {_utc_text(plan.ends_ns)}: the series ends there too")
    return wanted[0], min(ends, wanted[1])


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


def check_request(request: PullRequest, now: datetime) -> Span:
    """The range of a request in nanoseconds; raises :class:`InvalidRequest` for one that makes no sense."""
    step = bar_nanos(request.schema)
    problem = None
    if request.start.tzinfo is None or request.end.tzinfo is None:
        problem = "start and end need a time zone"
    elif not is_continuous(request.symbol) and not is_contract(request.symbol):
        problem = f"{request.symbol} is neither a contract nor a continuous symbol"
    elif _DATASET.fullmatch(request.dataset) is None:
        problem = f"{request.dataset!r} is no name of a dataset, such as GLBX.MDP3"
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
    had = False
    try:
        with exclusive(store, lock_number("pull", request.dataset, request.schema, request.symbol, key)):
            had = True
            yield
    except NotHad as error:
        assert not had, "pulls of one series do not nest"
        raise Refused(
            Reason(
                ReasonCode.ALREADY_RUNNING,
                f"another pull of {request.symbol} {request.schema} is under way",
                "Wait for it to end; the bars that it brings will not be asked for again.",
                {"symbol": request.symbol, "schema": request.schema},
            )
        ) from error


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


def held_segments(store: Store, lake: Path, request: PullRequest, key: str) -> list[LakeSegment]:
    """The segments of a series whose files hold what was written; the range of any other counts as missing."""
    files = VerifiedFiles(lake)
    held = [entry for entry in _segments(store, request, key) if files.intact(entry.path, entry.file_sha256)]
    files.save()
    return held


def _asked(row: ProviderRequest) -> Span:
    assert row.start_ts is not None
    assert row.end_ts is not None
    return to_ns(row.start_ts), to_ns(row.end_ts)


@dataclass
class _Done:
    """What was bought so far."""

    months: int = 0
    bars: int = 0
    cost: Decimal = Decimal(0)


@dataclass(frozen=True)
class _Pull:
    """One pull under its lock: what is there, what comes in, and the snapshot over both."""

    store: Store
    settings: Settings
    spec: InstrumentSpec
    request: PullRequest
    key: str
    say: Callable[[str], None]
    clock: Callable[[], datetime]

    def held(self) -> list[LakeSegment]:
        return held_segments(self.store, self.settings.lake, self.request, self.key)

    def recover(self, client: Callable[[], DatabentoHistorical]) -> int:
        """Record what an interrupted pull had paid for; returns how many purchases that were."""
        from blaid_pipelines.providers.databento.client import read_reply

        recovered = 0
        for reply in self._spool().paid_for(self.store, self.request):
            span = _asked(reply.request)
            start, end = from_ns(span[0]), from_ns(span[1])
            request = self.request
            provider = client()
            try:
                behind = provider.resolve_contracts(request.dataset, request.symbol, start, end)
            except (InvalidRequest, StopAndFix) as error:
                # Not dropped: the reply may be sound. Its range stays missing and is bought where it is wanted.
                self.say(f"{self._name(span)}: the reply of an interrupted pull is left aside, its contracts: {error}")
                continue
            try:
                dbn = read_reply(reply.data, behind, request.dataset, request.symbol, request.schema, start, end)
                bars = self._checked(span, dbn)
            except BlaidError as error:
                # Not taken: the range stays missing, and asking for it again gives this very reason to who asks.
                self.say(f"{self._name(span)}: the reply kept from an interrupted pull cannot be used: {error}")
                self._spool().drop(reply.request.id)
                continue
            self._record(span, dbn, bars, [*behind.request_ids, reply.request.id], None)
            self.say(f"{self._name(span)}: paid for by an interrupted pull, taken from its reply")
            recovered += 1
        return recovered

    def buy(self, client: DatabentoHistorical, plan: PullPlan, limits: PullLimits) -> _Done:
        """Buy everything of a plan, some purchases at a time."""
        if plan.refusal is not None:
            raise Refused(plan.refusal)
        self._say_price(plan)
        allowance = Allowance(plan.position)
        done, lock = _Done(), Lock()
        behind = {
            span: client.resolve_contracts(
                self.request.dataset, self.request.symbol, from_ns(span[0]), from_ns(span[1])
            )
            for span in plan.missing
        }

        def buy_one(purchase: Purchase) -> None:
            [around] = [span for span in plan.missing if span[0] <= purchase.span[0] < span[1]]
            bars = self._buy_one(client, purchase, behind[around], allowance)
            with lock:
                done.months += 1
                done.bars += bars
                done.cost += purchase.price
                cost = f"{purchase.price:.4f} USD"
                self.say(f"{self._name(purchase.span)}: {bars:,} bars, {cost} ({done.months} of {len(plan.purchases)})")

        try:
            in_parallel(buy_one, plan.purchases, limits.parallel_downloads)
        except BlaidError as error:
            error.reasons = (*error.reasons, self._incomplete(plan, done))
            raise
        done.cost += allowance.again_usd
        self.say(f"{self.request.symbol}: {done.bars:,} bars for {done.cost:.4f} USD")
        return done

    def _buy_one(self, client: DatabentoHistorical, purchase: Purchase, behind: Resolved, allowance: Allowance) -> int:
        request, (start_ns, end_ns) = self.request, purchase.span
        dbn, ids = client.get_bars(
            request.dataset,
            request.symbol,
            request.schema,
            from_ns(start_ns),
            from_ns(end_ns),
            behind=behind,
            keep=self._spool().keep,
            before_retry=lambda error: allowance.failed(purchase.price, error),
        )
        try:
            bars = self._checked(purchase.span, dbn)
        except StopAndFix:
            self._spool().drop(ids[-1])
            raise
        return self._record(purchase.span, dbn, bars, ids, purchase.price)

    def _checked(self, span: Span, dbn: DbnBars) -> Bars:
        bars = bars_of_dbn(dbn).ordered()
        _check_answer(self.request, self.spec, span, bars)
        return bars

    def _record(self, span: Span, dbn: DbnBars, bars: Bars, ids: list[UUID], price: Decimal | None) -> int:
        """Write the bars of one purchase to the lake and record them, all of it or nothing; returns how many."""
        request = self.request
        simulated = self.settings.databento_simulated or dbn.simulated
        provenance: dict[str, Any] = {
            "source": PROVIDER,
            "source_key": self.key,
            "simulated": simulated,
            "request_ids": [str(request_id) for request_id in ids],
        }
        where = (self.settings.lake, request.dataset, request.schema, request.symbol)
        files = write_segment(*where, bars, span[0], span[1], provenance)
        series = Series(request.dataset, request.schema, request.symbol, self.spec.symbol)
        cost = {} if price is None else {"cost_usd": str(price)}
        with self.store.session() as session:
            for file in files:
                days = days_as_json(bars.slice(file.start_ns, file.end_ns).days())
                kept = {**provenance, **cost, DAYS_KEY: days}
                record_segments(session, series, self.key, [file], bars, kept, simulated)
        self._spool().drop(ids[-1])
        return len(bars)

    def snapshot(self, wanted: Span, held: Sequence[LakeSegment], trace_id: str) -> Snapshot:
        """The snapshot of ``wanted`` over the segments."""
        request = self.request
        series = Series(request.dataset, request.schema, request.symbol, self.spec.symbol)
        provenance = {"source": PROVIDER, "source_key": self.key}
        made = snapshot_of_segments(self.store, self.settings.lake, series, wanted, held, provenance, trace_id)
        if made is None:
            raise StopAndFix(_no_bars(request, wanted, 0))
        return made

    def _spool(self) -> Spool:
        return Spool(self.settings.lake, self.key)

    def _name(self, span: Span) -> str:
        return f"{self.request.symbol} {_utc_text(span[0])} to {_utc_text(span[1])} UTC"

    def _say_price(self, plan: PullPlan) -> None:
        at = plan.position
        self.say(
            f"{self.request.symbol}: {len(plan.purchases)} purchases, {at.quoted:.4f} USD quoted; budget"
            f" {at.per_pull} USD a pull, {at.per_day} USD a day, {at.spent_today:.4f} USD spent today"
        )

    def _incomplete(self, plan: PullPlan, done: _Done) -> Reason:
        left = len(plan.purchases) - done.months
        return Reason(
            ReasonCode.PULL_INCOMPLETE,
            f"{done.months} of {len(plan.purchases)} purchases ended well and are in the lake: {done.bars:,} bars",
            "Mend the cause and ask for the same range again: what is there is not bought again.",
            {"purchases": len(plan.purchases), "recorded": done.months, "left": left, "cost_usd": str(done.cost)},
        )


def _check_answer(request: PullRequest, spec: InstrumentSpec, span: Span, bars: Bars) -> None:
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
    if open_minutes > QUIET_MINUTES:
        raise StopAndFix(_no_bars(request, span, open_minutes))


def _no_bars(request: PullRequest, span: Span, open_minutes: int) -> Reason:
    return Reason(
        ReasonCode.DATA_UNAVAILABLE,
        f"{request.symbol}: the provider has no {request.schema} bars in this range",
        "Check symbol and dates: a contract trades only for some months before it expires.",
        {
            "symbol": request.symbol,
            "start": from_ns(span[0]).isoformat(),
            "end": from_ns(span[1]).isoformat(),
            "bars": 0,
            "open_market_minutes": open_minutes,
        },
    )


def _utc_text(nanos: int) -> str:
    return f"{from_ns(nanos):%Y-%m-%d %H:%M}".removesuffix(" 00:00")
