"""What may be spent: purchases are priced first, held against the budget of the pull and of the day, one at a time.

A quote reserves nothing, so between the quotes and the last purchase that rests on them nobody else may buy:
:func:`purchase_lock` spans both. What was spent is read from the request rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import Connection, and_, func, or_, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import aliased

from blaid_pipelines.ids import fingerprint
from blaid_pipelines.market.bars import from_ns
from blaid_pipelines.market.spans import Span
from blaid_pipelines.reasons import Reason, ReasonCode, Refused
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

_LOCK_NOT_AVAILABLE = "55P03"


@contextmanager
def purchase_lock(
    store: Store, say: Callable[[str], None] = lambda _: None, wait_s: int = PURCHASE_WAIT_S
) -> Iterator[None]:
    """One purchase from the provider at a time, quotes included; whoever comes second waits.

    Raises :class:`Refused` (``ALREADY_RUNNING``) after ``wait_s`` seconds. The lock ends with its connection.
    """
    number = lock_number("budget", PROVIDER)
    with store.engine.connect() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:number)"), {"number": number}):
            say("another purchase is under way: waiting for it to end")
            _wait(connection, number, wait_s)
        connection.commit()
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": number})
            connection.commit()


def lock_number(*what: str) -> int:
    """The key of the advisory lock on ``what``."""
    return int(fingerprint(list(what))[:15], 16)


def _wait(connection: Connection, number: int, wait_s: int) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = '{int(wait_s)}s'"))
    try:
        connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": number})
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise Refused(
            Reason(
                ReasonCode.ALREADY_RUNNING,
                f"another purchase from {PROVIDER} has been under way for {wait_s} s",
                "Wait for it to end, then ask again: what it spends counts against the same budget.",
                {"provider": PROVIDER, "waited_s": wait_s},
            )
        ) from error


def price_spans(
    store: Store,
    client: DatabentoHistorical,
    budget: DataBudget,
    request: PullRequest,
    missing: Sequence[Span],
    clock: Callable[[], datetime],
) -> list[Decimal]:
    """What each missing range costs, asked for before anything is bought; refuses what the budget does not allow."""
    from blaid_pipelines.providers.databento.client import stype_of

    quotes = [
        client.get_cost(
            request.dataset, request.symbol, request.schema, stype_of(request.symbol), from_ns(left), from_ns(right)
        )
        for left, right in missing
    ]
    if any(not quote.is_finite() or quote < 0 for quote in quotes):
        raise _unknown_cost(request, f"the provider quoted {[str(quote) for quote in quotes]}")
    cost = sum(quotes, Decimal(0))
    spent = _spent(store, request, clock())
    for name, limit, total in (
        ("max_cost_usd_per_pull", budget.max_cost_usd_per_pull, cost),
        ("max_cost_usd_per_day", budget.max_cost_usd_per_day, cost + spent),
    ):
        if total > limit:
            raise Refused(
                Reason(
                    ReasonCode.COST_BUDGET_EXCEEDED,
                    f"pulling {request.symbol} would cost {cost} USD: {total} USD against {name} = {limit} USD",
                    "Ask for a shorter range, wait for the next UTC day, or raise the budget in the policy file.",
                    {"cost_usd": str(cost), "spent_today_usd": str(spent), "limit": name, "limit_usd": str(limit)},
                )
            )
    return quotes


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
