"""What may be spent: purchases are priced first, held against the budget of the pull and of the day, one at a time.

A quote reserves nothing, so between the quotes and the last purchase that rests on them nobody else may buy:
:func:`purchase_lock` spans both. What was spent is read from the request rows alone; what a running pull may still
spend on calls that it has to make again is kept by its :class:`Allowance`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import aliased

from blaid_pipelines.market.bars import from_ns
from blaid_pipelines.market.locks import NotHad, exclusive, lock_number
from blaid_pipelines.market.spans import Span
from blaid_pipelines.reasons import BlaidError, Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import ProviderRequest

if TYPE_CHECKING:
    from blaid_pipelines.market.purchase.pull import PullRequest
    from blaid_pipelines.providers.budget import DataBudget
    from blaid_pipelines.providers.databento.client import DatabentoHistorical
    from blaid_pipelines.store.database import Store

PROVIDER = "databento"
COST_ENDPOINT = "metadata.get_cost"
RANGE_ENDPOINT = "timeseries.get_range"

PURCHASE_WAIT_S = 900
"""Longest wait for another purchase to end."""


@contextmanager
def purchase_lock(
    store: Store, say: Callable[[str], None] = lambda _: None, wait_s: int = PURCHASE_WAIT_S
) -> Iterator[None]:
    """One purchase from the provider at a time, quotes included; whoever comes second waits.

    Raises :class:`Refused` (``ALREADY_RUNNING``) after ``wait_s`` seconds. The lock ends with its connection.
    """
    had = False
    try:
        with exclusive(
            store,
            lock_number("budget", PROVIDER),
            wait_s,
            lambda: say("another purchase is under way: waiting for it to end"),
        ):
            had = True
            yield
    except NotHad as error:
        assert not had, "purchases do not nest"
        raise Refused(
            Reason(
                ReasonCode.ALREADY_RUNNING,
                f"another purchase from {PROVIDER} has been under way for {wait_s} s",
                "Wait for it to end, then ask again: what it spends counts against the same budget.",
                {"provider": PROVIDER, "waited_s": wait_s},
            )
        ) from error


@dataclass(frozen=True, slots=True)
class Position:
    """Where a purchase stands: what it would cost, what this UTC day has cost so far, what both may cost, in USD."""

    quoted: Decimal
    spent_today: Decimal
    per_pull: Decimal
    per_day: Decimal

    def over(self, more: Decimal = Decimal(0)) -> tuple[str, Decimal, Decimal] | None:
        """The limit that the quoted cost and ``more`` would break: its name, its value, the total; None where none."""
        cost = self.quoted + more
        for name, limit, total in (
            ("max_cost_usd_per_pull", self.per_pull, cost),
            ("max_cost_usd_per_day", self.per_day, cost + self.spent_today),
        ):
            if total > limit:
                return name, limit, total
        return None

    def refusal(self, request: PullRequest) -> Reason | None:
        """Why what was quoted may not be bought; None where it may."""
        broken = self.over()
        if broken is None:
            return None
        name, limit, total = broken
        return Reason(
            ReasonCode.COST_BUDGET_EXCEEDED,
            f"pulling {request.symbol} would cost {self.quoted} USD: {total} USD against {name} = {limit} USD",
            "Ask for a shorter range, wait for the next UTC day, or raise the budget in the policy file.",
            {
                "cost_usd": str(self.quoted),
                "spent_today_usd": str(self.spent_today),
                "limit": name,
                "limit_usd": str(limit),
            },
        )


class Allowance:
    """What one pull may still spend while it runs. Thread-safe.

    A call that is made again may be billed again, unless its failure was the provider's own no (:data:`UNBILLED`): it
    counts against the limits of the pull and of the day at once, before the call.
    """

    def __init__(self, position: Position) -> None:
        self._position = position
        self._again = Decimal(0)
        self._lock = threading.Lock()

    @property
    def again_usd(self) -> Decimal:
        """What calls that had to be made again may have cost besides."""
        return self._again

    def failed(self, price: Decimal, error: BlaidError) -> None:
        """Count a failed call; to be told before it is made again. Raises ``error``, with why, where it may not be."""
        if error.reason.code.value in UNBILLED:
            return
        with self._lock:
            self._again += price
            broken = self._position.over(self._again)
        if broken is None:
            return
        name, limit, total = broken
        reason = Reason(
            ReasonCode.COST_BUDGET_EXCEEDED,
            f"the call was not made again: the provider may bill both, {total} USD against {name} = {limit} USD",
            "Ask again when the provider answers: what is in the lake already is not bought again.",
            {"limit": name, "limit_usd": str(limit), "total_usd": str(total), "price_usd": str(price)},
        )
        error.reasons = (*error.reasons, reason)
        raise error


def price_spans(
    store: Store,
    client: DatabentoHistorical,
    budget: DataBudget,
    request: PullRequest,
    missing: Sequence[Span],
    clock: Callable[[], datetime],
) -> list[Decimal]:
    """What each missing range costs, asked for before anything is bought; refuses what the budget does not allow."""
    quotes = [quote(client, request, span) for span in missing]
    refusal = position_of(store, budget, request, quotes, clock).refusal(request)
    if refusal is not None:
        raise Refused(refusal)
    return quotes


def quote(client: DatabentoHistorical, request: PullRequest, span: Span) -> Decimal:
    """What one range would cost, in USD. Raises :class:`Refused` (``COST_UNKNOWN``) for a price that is none."""
    from blaid_pipelines.providers.databento.client import stype_of

    price = client.get_cost(
        request.dataset, request.symbol, request.schema, stype_of(request.symbol), from_ns(span[0]), from_ns(span[1])
    )
    if not price.is_finite() or price < 0:
        raise _unknown_cost(request, f"the provider quoted {price}")
    return price


def position_of(
    store: Store,
    budget: DataBudget,
    request: PullRequest,
    quotes: Sequence[Decimal],
    clock: Callable[[], datetime],
) -> Position:
    """Quotes beside the budget and what was spent today."""
    spent = _spent(store, request, clock())
    return Position(sum(quotes, Decimal(0)), spent, budget.max_cost_usd_per_pull, budget.max_cost_usd_per_day)


# Failures that are the provider's own refusal, or that never reached it.
UNBILLED = tuple(
    code.value
    for code in (
        ReasonCode.AUTH_FAILED,
        ReasonCode.ENTITLEMENT_MISSING,
        ReasonCode.BAD_REQUEST,
        ReasonCode.NOT_FOUND,
        ReasonCode.SYMBOL_NOT_FOUND,
        ReasonCode.RANGE_UNAVAILABLE,
        ReasonCode.RATE_LIMITED,
        ReasonCode.PROVIDER_UNREACHABLE,
    )
)


def _spent(store: Store, request: PullRequest, now: datetime) -> Decimal:
    """US dollars of bars bought this UTC day: each purchase at its own cost, or at the quote that came before it.

    A purchase whose fate is not known for sure counts as made: one without an outcome, and one that failed after it was
    sent, for the provider may have billed it. Only answers that say no (:data:`UNBILLED`) cost nothing. Raises
    :class:`Refused` where a purchase has no price.
    """
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    bought, quote = aliased(ProviderRequest), aliased(ProviderRequest)
    quoted = (
        select(quote.cost_usd)
        .where(
            quote.provider == PROVIDER,
            quote.endpoint == COST_ENDPOINT,
            quote.success.is_(True),
            quote.trace_id == bought.trace_id,
            quote.symbol == bought.symbol,
            quote.schema == bought.schema,
            quote.start_ts == bought.start_ts,
            quote.end_ts == bought.end_ts,
        )
        .order_by(quote.created_at.desc())
        .limit(1)
        .correlate(bought)
        .scalar_subquery()
    )
    price = func.coalesce(bought.cost_usd, quoted)
    purchases = and_(
        bought.provider == PROVIDER,
        bought.endpoint == RANGE_ENDPOINT,
        bought.created_at >= day,
        bought.created_at < day + timedelta(days=1),
        or_(bought.error_code.is_(None), bought.error_code.not_in(UNBILLED)),
    )
    with store.session() as session:
        total, unpriced = session.execute(
            select(func.coalesce(func.sum(price), 0), func.count().filter(price.is_(None))).where(purchases)
        ).one()
    if unpriced:
        raise _unknown_cost(request, f"{unpriced} purchases of today have no price")
    return Decimal(total)


def _unknown_cost(request: PullRequest, why: str) -> Refused:
    return Refused(
        Reason(
            ReasonCode.COST_UNKNOWN,
            f"the cost of pulling {request.symbol} cannot be held against the budget: {why}",
            "Look at today's rows of market_data_requests, and at the provider's own account page.",
            {"symbol": request.symbol},
        )
    )
