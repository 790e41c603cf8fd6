"""What a backtest of one bot reads: a snapshot that passed the gate, the instrument's dated costs, the arrays.

The refusals of a backtest live here: no snapshot, no verdict, a failing verdict, a spoilt file. Bars are loaded once
per snapshot and shared by all bots of a cohort.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

from blaid_pipelines.backtest.arrays import BarArrays, build_arrays
from blaid_pipelines.backtest.engine import BacktestSpec, CostModel
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.market.instruments import InstrumentSpec, costs_on, get_instrument, margins_on
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.market.snapshots import get_snapshot, load_bars, require_pass, resolve_snapshot
from blaid_pipelines.reasons import Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import Bot, QualityVerdict, Snapshot


@dataclass(frozen=True)
class Inputs:
    """Everything one backtest reads. ``request_ids`` are the provider requests behind the snapshot."""

    snapshot: Snapshot
    verdict: QualityVerdict
    instrument: InstrumentSpec
    arrays: BarArrays
    spec: BacktestSpec
    sources: dict[str, Any]

    @property
    def request_ids(self) -> list[UUID]:
        """Ids of the provider requests that the snapshot's provenance cites; empty for bars from files."""
        return snapshot_request_ids(self.snapshot)


def snapshot_request_ids(snapshot: Snapshot) -> list[UUID]:
    """Ids of the provider requests that a snapshot's provenance cites, in order."""
    return [UUID(value) for value in snapshot.provenance.get("request_ids", [])]


@dataclass
class InputCache:
    """Arrays by snapshot id, for one cohort."""

    arrays: dict[str, BarArrays] = field(default_factory=dict)


def gather_inputs(lab: LabContext, bot: Bot, cache: InputCache, *, snapshot_id: str | None = None) -> Inputs:
    """Resolve, check and load what a backtest of ``bot`` reads.

    Raises :class:`Refused` where the snapshot is missing, ambiguous, unjudged, failing or spoilt. The newest snapshot
    of the bot's series is the one that counts: a newer failing one is not passed over for an older good one.
    """
    snapshot = (
        resolve_snapshot(lab.store, bot.instrument, bot.symbol, bot.schema)
        if snapshot_id is None
        else _own_snapshot(lab, bot, snapshot_id)
    )
    verdict = require_pass(lab.store, snapshot, lab.policy.hash)
    instrument = get_instrument(lab.store, bot.instrument)
    arrays = cache.arrays.get(snapshot.snapshot_id)
    if arrays is None:
        bars = load_bars(lab.store, lab.lake, snapshot)
        sessions = load_sessions(instrument.session, int(bars.ts_open[0]), int(bars.ts_open[-1]) + 1)
        arrays = cache.arrays[snapshot.snapshot_id] = build_arrays(bars, instrument, sessions)
    spec, sources = build_spec(lab, bot, instrument, snapshot.range_start.date())
    return Inputs(snapshot, verdict, instrument, arrays, spec, sources)


def build_spec(lab: LabContext, bot: Bot, instrument: InstrumentSpec, day: date) -> tuple[BacktestSpec, dict[str, Any]]:
    """The kernel's settings for ``bot``, with costs and margins as dated on ``day``, and where they come from."""
    costs = costs_on(lab.store, bot.instrument, day)
    margins = margins_on(lab.store, bot.instrument, day)
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
    }
    return spec, sources


def _own_snapshot(lab: LabContext, bot: Bot, snapshot_id: str) -> Snapshot:
    """The named snapshot; raises :class:`Refused` (INSTRUMENT_MISMATCH) when it is not of the bot's instrument."""
    snapshot = get_snapshot(lab.store, snapshot_id)
    if snapshot.instrument != bot.instrument:
        raise Refused(
            Reason(
                ReasonCode.INSTRUMENT_MISMATCH,
                f"snapshot {snapshot_id} holds {snapshot.instrument}, {bot.name} trades {bot.instrument}",
                "Name a snapshot of the bot's own instrument.",
                {"snapshot_instrument": snapshot.instrument, "bot_instrument": bot.instrument},
            )
        )
    return snapshot
