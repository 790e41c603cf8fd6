"""Holding our instrument rows against the provider's own definitions of the contracts, as of one day.

The table stays the authority; a difference, or a definition that is not there, is a reason and never a correction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from blaid_pipelines.market.bars import to_ns
from blaid_pipelines.market.instruments import cross_check, get_instrument
from blaid_pipelines.market.purchase.budget import price_spans, purchase_lock
from blaid_pipelines.market.purchase.pull import DEFAULT_ATTEMPTS, PullRequest, utc_now
from blaid_pipelines.reasons import Reason, ReasonCode

if TYPE_CHECKING:
    from blaid_pipelines.proof.recorder import CallContext, Recorder
    from blaid_pipelines.providers.budget import DataBudget
    from blaid_pipelines.settings import Settings
    from blaid_pipelines.store.database import Store


@dataclass(frozen=True, slots=True)
class DefinitionCheck:
    """Differences found (empty: all agree), the contracts looked at, what it cost, and the requests behind it."""

    reasons: list[Reason]
    contracts: list[str]
    cost_usd: Decimal
    request_ids: list[UUID]


def check_definitions(
    store: Store,
    settings: Settings,
    recorder: Recorder,
    budget: DataBudget,
    context: CallContext,
    symbol: str,
    day: date,
    dataset: str = "GLBX.MDP3",
    clock: Callable[[], datetime] = utc_now,
    *,
    attempts: int = DEFAULT_ATTEMPTS,
) -> DefinitionCheck:
    """Fetch the definitions behind ``symbol`` on a UTC day and compare each outright with our row.

    The cost is asked for and held against the budget first, as for bars. No definition at all is a reason too
    (``EVIDENCE_MISSING``). Raises what ``price_spans`` and the client raise.
    """
    from blaid_pipelines.providers.databento.client import DatabentoHistorical

    spec = get_instrument(store, symbol)
    start = datetime.combine(day, time(), UTC)
    end = start + timedelta(days=1)
    client = DatabentoHistorical(settings, recorder, context, max_attempts=attempts)
    request = PullRequest(symbol, start, end, schema="definition", dataset=dataset)
    with purchase_lock(store):
        [cost] = price_spans(store, client, budget, request, [(to_ns(start), to_ns(end))], clock)
        definitions = client.get_definitions(dataset, symbol, start, end)
    # Spreads and options share the parent symbol; only outrights (class F) have our tick and point value.
    found = [entry for entry in definitions if entry.instrument_class == "F"]
    reasons = [reason for entry in found for reason in cross_check(spec, entry)]
    if not found:
        reasons = [
            Reason(
                ReasonCode.EVIDENCE_MISSING,
                f"the provider has no definition of {symbol} on {day.isoformat()}",
                "Ask for a day on which the contract trades.",
                {"symbol": symbol, "day": day.isoformat()},
            )
        ]
    return DefinitionCheck(reasons, sorted({entry.raw_symbol for entry in found}), cost, list(client.succeeded))
