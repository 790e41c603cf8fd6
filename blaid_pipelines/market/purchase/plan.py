"""What a pull would buy: the missing ranges cut at UTC month turns, each with its price, held against the budget.

Asking is free and is on record like any call. Where the provider has no data up to the end that was asked for, the plan
ends where the data does, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

from blaid_pipelines.market.bars import bar_nanos, from_ns, to_ns
from blaid_pipelines.market.purchase.budget import Position, position_of, quote
from blaid_pipelines.market.spans import Span
from blaid_pipelines.reasons import BlaidError, Reason, ReasonCode

if TYPE_CHECKING:
    from blaid_pipelines.market.purchase.limits import PullLimits
    from blaid_pipelines.market.purchase.pull import PullRequest
    from blaid_pipelines.providers.budget import DataBudget
    from blaid_pipelines.providers.databento.client import DatabentoHistorical
    from blaid_pipelines.store.database import Store

Item = TypeVar("Item")
Result = TypeVar("Result")

_ENDS_BEFORE = ("data_end_after_available_end", "data_start_after_available_end")


@dataclass(frozen=True, slots=True)
class Purchase:
    """One range to buy in one call, and its price in USD."""

    span: Span
    price: Decimal


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What is missing (before it is cut), what to buy for it, where that stands, why not (None: it may be bought).

    ``ends_ns`` is where the provider's data ends, if that is before the end that was asked for.
    """

    missing: list[Span]
    purchases: list[Purchase]
    position: Position
    refusal: Reason | None
    ends_ns: int | None = None


def month_spans(span: Span, months: int) -> list[Span]:
    """``span`` cut at turns of UTC months, ``months`` at a time counted from each January, wherever it begins."""
    cuts = [span[0]]
    start = from_ns(span[0])
    year, month = start.year, start.month
    while True:
        month = ((month - 1) // months + 1) * months + 1
        if month > 12:
            year, month = year + 1, 1
        turn = to_ns(datetime(year, month, 1, tzinfo=UTC))
        if turn >= span[1]:
            return list(zip(cuts, [*cuts[1:], span[1]], strict=True))
        cuts.append(turn)


def plan_pull(
    store: Store,
    client: DatabentoHistorical,
    budget: DataBudget,
    limits: PullLimits,
    request: PullRequest,
    missing: Sequence[Span],
    clock: Callable[[], datetime],
) -> PullPlan:
    """Price what is missing, which is something. Raises what the client raises."""
    spans = _cut(missing, limits)
    ends_ns = None
    try:
        newest = quote(client, request, spans[-1])
    except BlaidError as error:
        ends_ns = _end_of_data(error, request)
        missing = [(left, min(right, ends_ns)) for left, right in missing if ends_ns is not None and left < ends_ns]
        if not missing:
            raise
        spans = _cut(missing, limits)
        newest = quote(client, request, spans[-1])
    prices = in_parallel(lambda span: quote(client, request, span), spans[:-1], limits.parallel_downloads)
    position = position_of(store, budget, request, [*prices, newest], clock)
    purchases = [Purchase(span, price) for span, price in zip(spans, [*prices, newest], strict=True)]
    return PullPlan(list(missing), purchases, position, position.refusal(request), ends_ns)


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """``work`` on every item, some at a time. After a failure nothing new starts; what runs ends; the first is raised.

    Ctrl-C counts as a failure: what was sent is waited for, so that what it brings is not lost.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(enumerate(items))
        running: dict[Future[Result], int] = {}
        results: dict[int, Result] = {}
        failures: dict[int, BaseException] = {}
        while True:
            while not failures and len(running) < workers and (entry := next(waiting, None)) is not None:
                running[pool.submit(work, entry[1])] = entry[0]
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                position = running.pop(future)
                error = future.exception()
                if error is None:
                    results[position] = future.result()
                else:
                    failures[position] = error
    if failures:
        raise failures[min(failures)]
    return [results[position] for position in range(len(items))]


def _cut(missing: Sequence[Span], limits: PullLimits) -> list[Span]:
    return [part for span in missing for part in month_spans(span, limits.months_per_request)]


def _end_of_data(error: BlaidError, request: PullRequest) -> int | None:
    """Where the provider's data ends, on a whole bar, by its own refusal; None where that says something else.

    It may be the end of the dataset, or the moment up to which the key's licence reaches.
    """
    numbers = error.reason.numbers
    if error.reason.code is ReasonCode.RANGE_UNAVAILABLE and numbers.get("case") in _ENDS_BEFORE:
        said = numbers.get("available_end")
    elif error.reason.code is ReasonCode.ENTITLEMENT_MISSING:
        said = numbers.get("cutoff")
    else:
        return None
    try:
        moment = datetime.fromisoformat(str(said)[:26].rstrip("Z"))
    except ValueError:
        return None
    step = bar_nanos(request.schema)
    return to_ns(moment.replace(tzinfo=UTC)) // step * step
