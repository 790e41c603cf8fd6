"""What a backtest of one bot reads: a snapshot that passed the gate, the instrument's dated costs, the arrays.

The refusals of a backtest live here: no snapshot, no verdict, a failing verdict, a spoilt file. Bars are loaded once
per snapshot and shared by all bots of a cohort.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from blaid_pipelines.backtest.arrays import BarArrays, build_arrays
from blaid_pipelines.backtest.engine import BacktestSpec, CostModel
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.fallback import require_no_stand_in
from blaid_pipelines.market.instruments import InstrumentSpec, costs_on, get_instrument, margins_on
from blaid_pipelines.market.lake.snapshots import get_snapshot, load_bars, require_pass, resolve_snapshot
from blaid_pipelines.market.reconcile import require_reconciled
from blaid_pipelines.market.rolls import RollStep
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.policy.model import Stage
from blaid_pipelines.reasons import Reason, ReasonCode, Refused, StopAndFix
from blaid_pipelines.store.tables import Bot, QualityVerdict, Snapshot


@dataclass(frozen=True)
class Inputs:
    """Everything one backtest reads."""

    snapshot: Snapshot
    verdict: QualityVerdict
    instrument: InstrumentSpec
    arrays: BarArrays
    spec: BacktestSpec
    sources: dict[str, Any]


def snapshot_request_ids(snapshot: Snapshot) -> list[UUID]:
    """Ids of the provider requests that a snapshot's provenance cites, in order."""
    return [UUID(value) for value in snapshot.provenance.get("request_ids", [])]


@dataclass
class InputCache:
    """Arrays by snapshot id, for one cohort. ``again`` holds a second, independent load for the reproduction."""

    arrays: dict[str, BarArrays] = field(default_factory=dict)
    again: dict[str, BarArrays] = field(default_factory=dict)


def find_snapshot(lab: LabContext, bot: Bot, snapshot_id: str | None) -> Snapshot:
    """The current snapshot of the bot's series, or the named one where it is of that series.

    Raises :class:`Refused` where there is none, where the series is ambiguous, or INSTRUMENT_MISMATCH.
    """
    if snapshot_id is None:
        return resolve_snapshot(lab.store, bot.instrument, bot.symbol, bot.schema)
    snapshot = get_snapshot(lab.store, snapshot_id)
    held = (snapshot.instrument, snapshot.schema, snapshot.symbol)
    if held != (bot.instrument, bot.schema, bot.symbol or snapshot.symbol):
        raise Refused(
            Reason(
                ReasonCode.INSTRUMENT_MISMATCH,
                f"snapshot {snapshot_id[:16]} holds {snapshot.symbol} {snapshot.schema}, {bot.name} reads "
                f"{bot.symbol or bot.instrument} {bot.schema}",
                "Name a snapshot of the bot's own series.",
                {"snapshot": list(held), "bot": [bot.instrument, bot.schema, bot.symbol]},
            )
        )
    return snapshot


def gather_inputs(lab: LabContext, bot: Bot, snapshot: Snapshot, cache: InputCache) -> Inputs:
    """Check and load what a backtest of ``bot`` over ``snapshot`` reads.

    Raises :class:`Refused` where the snapshot is unjudged, judged under another policy, failing or spoilt, where it was
    held against another account of its bars and not confirmed, where it stands in for the configured provider's and
    the bot's stage allows none, and where costs or margins change inside its range.
    """
    verdict = require_pass(lab.store, snapshot, lab.policy.hash)
    require_reconciled(lab.store, snapshot, lab.policy.hash, lab.policy.reconciliation)
    require_no_stand_in(lab, Stage(bot.stage), snapshot)
    instrument = get_instrument(lab.store, bot.instrument)
    if snapshot.snapshot_id not in cache.arrays:
        cache.arrays[snapshot.snapshot_id] = load_arrays(lab, instrument, snapshot)
    arrays = cache.arrays[snapshot.snapshot_id]
    days = [datetime.fromtimestamp(int(ts) // 1_000_000_000, UTC).date() for ts in (arrays.ts_open[[0, -1]])]
    spec, sources = build_spec(lab, bot, instrument, days[0], days[1])
    return Inputs(snapshot, verdict, instrument, arrays, spec, sources)


def load_arrays(lab: LabContext, instrument: InstrumentSpec, snapshot: Snapshot) -> BarArrays:
    """The snapshot's bars, verified against their hashes, in the kernel's form."""
    bars = load_bars(lab.store, lab.lake, snapshot)
    sessions = load_sessions(instrument.session, int(bars.ts_open[0]), int(bars.ts_open[-1]) + 1)
    return build_arrays(bars, instrument, sessions, steps_of(snapshot))


def steps_of(snapshot: Snapshot) -> list[RollStep]:
    """The roll steps that were known when the snapshot's series was made, from its provenance; none is an empty list.

    Raises :class:`StopAndFix` (SNAPSHOT_CORRUPT) where they cannot be read.
    """
    try:
        return [RollStep.from_json(step) for step in snapshot.provenance.get("rolls") or []]
    except (KeyError, TypeError, ValueError) as error:
        raise StopAndFix(
            Reason(
                ReasonCode.SNAPSHOT_CORRUPT,
                f"the roll steps in the provenance of snapshot {snapshot.snapshot_id[:16]} cannot be read: {error}",
                "Ingest or pull the series again.",
                {"snapshot_id": snapshot.snapshot_id},
            )
        ) from error


def instrument_facts(instrument: InstrumentSpec) -> dict[str, Any]:
    """What of an instrument's row decides a backtest; recorded with the session and compared at its reproduction."""
    return {
        "symbol": instrument.symbol,
        "tick_nanos": instrument.tick_nanos,
        "tick_value_microusd": instrument.tick_value_microusd,
        "session": instrument.session,
    }


def build_spec(
    lab: LabContext, bot: Bot, instrument: InstrumentSpec, first: date, last: date
) -> tuple[BacktestSpec, dict[str, Any]]:
    """The kernel's settings for ``bot``, and where they come from: costs and margins as dated on the first day.

    Raises :class:`Refused` (COSTS_CHANGE_IN_RANGE) when another row holds on the last day: one backtest has one price
    list, and a wrong one is not guessed.
    """
    costs = costs_on(lab.store, bot.instrument, first)
    margins = margins_on(lab.store, bot.instrument, first)
    later = costs_on(lab.store, bot.instrument, last), margins_on(lab.store, bot.instrument, last)
    if (costs, margins) != later:
        changes = sorted({row.effective_from for row in later} - {costs.effective_from, margins.effective_from})
        raise Refused(
            Reason(
                ReasonCode.COSTS_CHANGE_IN_RANGE,
                f"costs or margins of {bot.instrument} change between {first} and {last}",
                "Backtest a range on one side of the change.",
                {"first": str(first), "last": str(last), "effective_from": [str(day) for day in changes]},
            )
        )
    spec = BacktestSpec(
        family=bot.strategy_family,
        params=dict(bot.params),
        costs=CostModel(
            tick_value_microusd=instrument.tick_value_microusd,
            commission_per_side_microusd=costs.commission_per_side_microusd,
            fees_per_side_microusd=costs.fees_per_side_microusd,
            slippage_ticks=costs.slippage_ticks,
        ),
        capital_cents=bot.capital_cents,
        contracts=bot.contracts,
        margin_per_contract_cents=margins.initial_cents,
        daily_loss_limit_cents=lab.policy.stages[bot.stage].daily_loss_limit_cents(bot.capital_cents),
    )
    sources = {
        "costs": {"effective_from": costs.effective_from.isoformat(), "source": costs.source},
        "margins": {"effective_from": margins.effective_from.isoformat(), "source": margins.source},
        "instrument": instrument_facts(instrument),
    }
    return spec, sources
