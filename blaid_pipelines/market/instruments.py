"""Instruments: what a contract is worth and when it trades, and its dated costs and margins, read from the store.

The rows come from the seed migration and whatever an operator adds beside them; no contract fact is repeated in other
code. :func:`cross_check` compares a row with the provider's own definition of the contract.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import select

from blaid_pipelines.providers.databento.symbols import check_spelling
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix
from blaid_pipelines.store.tables import Instrument, InstrumentCost, InstrumentMargin

if TYPE_CHECKING:
    from blaid_pipelines.providers.databento.dbn import Definition
    from blaid_pipelines.store.database import Store

NANOS = 1_000_000_000
_MICROUSD = 1_000_000

_CONTINUOUS = re.compile(r"([A-Z0-9]{1,4})\.[cnv]\.(?:0|[1-9]\d?)")
_PARENT = re.compile(r"([A-Z0-9]{1,4})\.FUT")
_CONTRACT = re.compile(r"([A-Z0-9]{1,3}?)[FGHJKMNQUVXZ]\d{1,2}")
_ROOT = re.compile(r"[A-Z0-9]{1,4}")


@dataclass(frozen=True, slots=True)
class InstrumentSpec:
    """One product root. Prices in nanos (1e-9 of a price unit), money in millionths of a dollar."""

    symbol: str
    name: str
    exchange: str
    mic: str
    tick_size: Decimal
    tick_nanos: int
    point_value: Decimal  # currency per 1.0 of price and contract
    tick_value_microusd: int
    currency: str
    min_qty: int
    max_qty: int
    session: str  # name of the exchange calendar
    contract_months: str
    price_low: Decimal  # plausible range of a price: outside it the scale is wrong
    price_high: Decimal
    may_be_negative: bool


@dataclass(frozen=True, slots=True)
class InstrumentCosts:
    """What one contract and side costs from ``effective_from`` on, with the source of the numbers."""

    symbol: str
    commission_per_side_microusd: int
    fees_per_side_microusd: int
    slippage_ticks: int
    effective_from: date
    source: str


@dataclass(frozen=True, slots=True)
class InstrumentMargins:
    """What one contract ties up from ``effective_from`` on, in cents, with the source of the numbers."""

    symbol: str
    initial_cents: int
    maintenance_cents: int
    effective_from: date
    source: str


def instrument_root(symbol: str) -> str:
    """The product root of a symbol: ``MES.c.0``, ``MES.FUT``, ``MESH4``, ``MES`` give ``MES``, ``6EH4`` gives ``6E``.

    Only the form is read; whether the root is known is :func:`get_instrument`'s business. Raises
    :class:`InvalidRequest` (``INSTRUMENT_UNKNOWN``) for a symbol of no known form, spreads included, and for another
    spelling of a series' one name (``INVALID_REQUEST``).
    """
    check_spelling(symbol)
    for form in (_CONTINUOUS, _PARENT, _CONTRACT):
        match = form.fullmatch(symbol)
        if match:
            return match.group(1)
    if _ROOT.fullmatch(symbol):
        return symbol
    raise InvalidRequest(
        Reason(
            ReasonCode.INSTRUMENT_UNKNOWN,
            f"{symbol!r} is no futures symbol that Blaid reads",
            "Give a continuous symbol such as MES.c.0, a contract such as MESH4, or a root such as MES.",
            {"symbol": symbol},
        )
    )


def is_continuous(symbol: str) -> bool:
    """True for ``ROOT.rule.rank`` symbols, whose bars come from several contracts in turn."""
    return _CONTINUOUS.fullmatch(symbol) is not None


def is_contract(symbol: str) -> bool:
    """True for one outright contract such as ``6EH4``."""
    return _CONTRACT.fullmatch(symbol) is not None


def _exact(value: Decimal, factor: int, what: str, symbol: str) -> int:
    scaled = value * factor
    if scaled != scaled.to_integral_value():
        raise StopAndFix(
            Reason(
                ReasonCode.INSTRUMENT_MISMATCH,
                f"{symbol}: {what} {value} does not fit whole units of 1/{factor}",
                "Correct the instrument's row.",
                {"symbol": symbol, "field": what, "value": str(value)},
            )
        )
    return int(scaled)


def _spec(row: Instrument) -> InstrumentSpec:
    return InstrumentSpec(
        symbol=row.symbol,
        name=row.name,
        exchange=row.exchange,
        mic=row.mic,
        tick_size=row.tick_size,
        tick_nanos=_exact(row.tick_size, NANOS, "tick_size", row.symbol),
        point_value=row.point_value,
        tick_value_microusd=_exact(row.tick_size * row.point_value, _MICROUSD, "tick value", row.symbol),
        currency=row.currency,
        min_qty=row.min_qty,
        max_qty=row.max_qty,
        session=row.session,
        contract_months=row.contract_months,
        price_low=row.price_low,
        price_high=row.price_high,
        may_be_negative=row.may_be_negative,
    )


def get_instrument(store: Store, symbol: str) -> InstrumentSpec:
    """The instrument behind any symbol form. Raises :class:`InvalidRequest` when unknown or switched off."""
    root = instrument_root(symbol)
    with store.session() as session:
        row = session.get(Instrument, root)
        if row is not None and row.is_active:
            return _spec(row)
        known = sorted(session.scalars(select(Instrument.symbol).where(Instrument.is_active)))
    raise InvalidRequest(
        Reason(
            ReasonCode.INSTRUMENT_UNKNOWN,
            f"{root} is not in the instrument table" if row is None else f"{root} is switched off",
            f"Use one of: {', '.join(known)}.",
            {"symbol": symbol, "root": root, "known": known},
        )
    )


def list_instruments(store: Store) -> list[InstrumentSpec]:
    """Every active instrument, sorted by symbol."""
    with store.session() as session:
        rows = session.scalars(select(Instrument).where(Instrument.is_active).order_by(Instrument.symbol))
        return [_spec(row) for row in rows]


def _nothing_on(what: str, root: str, day: date) -> StopAndFix:
    return StopAndFix(
        Reason(
            ReasonCode.EVIDENCE_MISSING,
            f"{root} has no {what} in force on {day.isoformat()}",
            f"Add a row to instrument_{what} with an earlier effective_from and its source.",
            {"symbol": root, "day": day.isoformat()},
        )
    )


def costs_on(store: Store, symbol: str, day: date) -> InstrumentCosts:
    """The newest cost row effective on ``day``; :class:`StopAndFix` when there is none."""
    root = instrument_root(symbol)
    query = (
        select(InstrumentCost)
        .where(InstrumentCost.symbol == root, InstrumentCost.effective_from <= day)
        .order_by(InstrumentCost.effective_from.desc())
        .limit(1)
    )
    with store.session() as session:
        row = session.scalars(query).first()
        if row is None:
            raise _nothing_on("costs", root, day)
        return InstrumentCosts(
            root,
            _exact(row.commission_per_side, _MICROUSD, "commission_per_side", root),
            _exact(row.fees_per_side, _MICROUSD, "fees_per_side", root),
            row.slippage_ticks,
            row.effective_from,
            row.source,
        )


def margins_on(store: Store, symbol: str, day: date) -> InstrumentMargins:
    """The newest margin row effective on ``day``; :class:`StopAndFix` when there is none."""
    root = instrument_root(symbol)
    query = (
        select(InstrumentMargin)
        .where(InstrumentMargin.symbol == root, InstrumentMargin.effective_from <= day)
        .order_by(InstrumentMargin.effective_from.desc())
        .limit(1)
    )
    with store.session() as session:
        row = session.scalars(query).first()
        if row is None:
            raise _nothing_on("margins", root, day)
        return InstrumentMargins(
            root,
            _exact(row.initial, 100, "initial", root),
            _exact(row.maintenance, 100, "maintenance", root),
            row.effective_from,
            row.source,
        )


def cross_check(spec: InstrumentSpec, definition: Definition) -> list[Reason]:
    """Differences between our row and a Databento definition of one of its contracts; an empty list when they agree.

    Treasuries are quoted in per cent of a face value, which the definition gives as the size: their point value is a
    hundredth of it. A field that the definition leaves undefined is a difference too.
    """
    size = definition.unit_of_measure_qty
    point_nanos = None if size is None else size // 100 if spec.symbol in {"ZN", "ZB"} else size
    ours_and_theirs: list[tuple[str, object, object]] = [
        ("tick_size", spec.tick_size, _from_nanos(definition.min_price_increment)),
        ("point_value", spec.point_value, _from_nanos(point_nanos)),
        ("currency", spec.currency, definition.currency),
        ("mic", spec.mic, definition.exchange),
        ("asset", spec.symbol, definition.asset),
    ]
    return [
        Reason(
            ReasonCode.INSTRUMENT_MISMATCH,
            f"{spec.symbol}: {name} is {ours} here and {'absent' if theirs is None else theirs} in the definition",
            "Find out which is right; correct the instrument's row or report the definition.",
            {
                "symbol": spec.symbol,
                "contract": definition.raw_symbol,
                "field": name,
                "ours": str(ours),
                "definition": None if theirs is None else str(theirs),
            },
        )
        for name, ours, theirs in ours_and_theirs
        if ours != theirs
    ]


def _from_nanos(value: int | None) -> Decimal | None:
    return None if value is None else Decimal(value) / NANOS
