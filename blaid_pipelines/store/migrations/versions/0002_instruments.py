"""The 17 CME contracts, with dated costs and margins.

Why: everything that prices a trade or checks a bar reads these rows; no contract fact is written down elsewhere.
Data safety: upgrade adds rows and touches none. Downgrade removes the rows of these 17 symbols, dated rows added later
included; the database refuses it while bots or snapshots still cite them.

Ticks, point values, currencies and exchanges are CME contract specifications (2026-08, as published in the symbol
properties of QuantConnect LEAN). Costs and margins are assumptions of ours, and each row's ``source`` says so: an
operator adds rows with a later ``effective_from`` for what the broker really charges.
"""

from datetime import date
from decimal import Decimal
from uuid import UUID, uuid5

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SCHEMA = "blaid"
# First day of the GLBX.MDP3 history: the assumed numbers hold for all of it.
_EFFECTIVE = date(2010, 6, 6)
_NAMESPACE = UUID("5f6a3f0e-3f0b-5c58-9a55-2f1c1a1b6d11")
_COST_SOURCE = (
    "Assumption of Blaid, not a quote: commission as of a discount retail broker (2024 level), fees near the "
    "exchange's non-member and NFA fees of 2024, one tick of slippage a side; applied to all earlier dates too."
)
_MARGIN_SOURCE = (
    "Assumption of Blaid, not a quote: near the exchange's overnight margins of mid-2024, initial 110 % of "
    "maintenance, applied to all earlier dates too. Brokers may ask for more."
)

_EQUITY = "CME Globex Equity"
_RATES = "CME Globex Interest Rate Products"
_FX = "CMEGlobex_FX"
_ALL = "FGHJKMNQUVXZ"

# symbol, name, exchange, MIC, tick size, point value, months, calendar, plausible low and high, may be negative
_INSTRUMENTS = (
    ("ES", "E-mini S&P 500", "CME", "XCME", "0.25", "50", "HMUZ", _EQUITY, "300", "30000", False),
    ("MES", "Micro E-mini S&P 500", "CME", "XCME", "0.25", "5", "HMUZ", _EQUITY, "300", "30000", False),
    ("NQ", "E-mini Nasdaq-100", "CME", "XCME", "0.25", "20", "HMUZ", _EQUITY, "500", "120000", False),
    ("MNQ", "Micro E-mini Nasdaq-100", "CME", "XCME", "0.25", "2", "HMUZ", _EQUITY, "500", "120000", False),
    ("RTY", "E-mini Russell 2000", "CME", "XCME", "0.10", "50", "HMUZ", _EQUITY, "150", "15000", False),
    ("M2K", "Micro E-mini Russell 2000", "CME", "XCME", "0.10", "5", "HMUZ", _EQUITY, "150", "15000", False),
    ("YM", "E-mini Dow", "CBOT", "XCBT", "1.00", "5", "HMUZ", _EQUITY, "3000", "300000", False),
    ("MYM", "Micro E-mini Dow", "CBOT", "XCBT", "1.00", "0.50", "HMUZ", _EQUITY, "3000", "300000", False),
    ("CL", "WTI crude oil", "NYMEX", "XNYM", "0.01", "1000", _ALL, "CMEGlobex_CL", "-100", "400", True),
    ("MCL", "Micro WTI crude oil", "NYMEX", "XNYM", "0.01", "100", _ALL, "CMEGlobex_MCL", "-100", "400", True),
    ("GC", "Gold", "COMEX", "XCEC", "0.10", "100", "GJMQVZ", "CMEGlobex_GC", "200", "20000", False),
    ("MGC", "Micro gold", "COMEX", "XCEC", "0.10", "10", "GJMQVZ", "CMEGlobex_GC", "200", "20000", False),
    ("SI", "Silver", "COMEX", "XCEC", "0.005", "5000", "HKNUZ", "CMEGlobex_SI", "3", "300", False),
    ("6E", "Euro FX", "CME", "XCME", "0.00005", "125000", "HMUZ", _FX, "0.5", "2.5", False),
    ("M6E", "Micro EUR/USD", "CME", "XCME", "0.0001", "12500", "HMUZ", _FX, "0.5", "2.5", False),
    ("ZN", "10-year T-note", "CBOT", "XCBT", "0.015625", "1000", "HMUZ", _RATES, "50", "250", False),
    ("ZB", "30-year T-bond", "CBOT", "XCBT", "0.03125", "1000", "HMUZ", _RATES, "50", "300", False),
)

# symbol: commission and fees per contract and side, initial and maintenance margin per contract, all in dollars
_ASSUMED = {
    "ES": ("0.85", "1.40", "12980", "11800"),
    "MES": ("0.25", "0.37", "1298", "1180"),
    "NQ": ("0.85", "1.40", "19360", "17600"),
    "MNQ": ("0.25", "0.37", "1936", "1760"),
    "RTY": ("0.85", "1.40", "7150", "6500"),
    "M2K": ("0.25", "0.37", "715", "650"),
    "YM": ("0.85", "1.40", "9350", "8500"),
    "MYM": ("0.25", "0.37", "935", "850"),
    "CL": ("0.85", "1.62", "6600", "6000"),
    "MCL": ("0.25", "0.62", "660", "600"),
    "GC": ("0.85", "1.62", "9900", "9000"),
    "MGC": ("0.25", "0.62", "990", "900"),
    "SI": ("0.85", "1.62", "10450", "9500"),
    "6E": ("0.85", "1.62", "2310", "2100"),
    "M6E": ("0.15", "0.26", "231", "210"),
    "ZN": ("0.85", "0.82", "2200", "2000"),
    "ZB": ("0.85", "0.89", "4180", "3800"),
}


def upgrade() -> None:
    instruments = sa.table(
        "instruments",
        *(sa.column(name) for name in ("symbol", "name", "exchange", "mic", "tick_size", "point_value", "currency")),
        *(sa.column(name) for name in ("min_qty", "max_qty", "session", "contract_months")),
        *(sa.column(name) for name in ("price_low", "price_high", "may_be_negative", "is_active")),
        schema=_SCHEMA,
    )
    op.bulk_insert(
        instruments,
        [
            {
                "symbol": symbol,
                "name": name,
                "exchange": exchange,
                "mic": mic,
                "tick_size": Decimal(tick),
                "point_value": Decimal(point),
                "currency": "USD",
                "min_qty": 1,
                "max_qty": 100 if symbol.startswith("M") else 20,
                "session": calendar,
                "contract_months": months,
                "price_low": Decimal(low),
                "price_high": Decimal(high),
                "may_be_negative": negative,
                "is_active": True,
            }
            for symbol, name, exchange, mic, tick, point, months, calendar, low, high, negative in _INSTRUMENTS
        ],
    )
    costs = sa.table(
        "instrument_costs",
        sa.column("id", sa.Uuid()),
        *(sa.column(name) for name in ("symbol", "effective_from", "commission_per_side", "fees_per_side")),
        *(sa.column(name) for name in ("slippage_ticks", "source")),
        schema=_SCHEMA,
    )
    op.bulk_insert(
        costs,
        [
            {
                "id": uuid5(_NAMESPACE, f"costs/{symbol}"),
                "symbol": symbol,
                "effective_from": _EFFECTIVE,
                "commission_per_side": Decimal(commission),
                "fees_per_side": Decimal(fees),
                "slippage_ticks": 1,
                "source": _COST_SOURCE,
            }
            for symbol, (commission, fees, _, _) in _ASSUMED.items()
        ],
    )
    margins = sa.table(
        "instrument_margins",
        sa.column("id", sa.Uuid()),
        *(sa.column(name) for name in ("symbol", "effective_from", "initial", "maintenance", "source")),
        schema=_SCHEMA,
    )
    op.bulk_insert(
        margins,
        [
            {
                "id": uuid5(_NAMESPACE, f"margins/{symbol}"),
                "symbol": symbol,
                "effective_from": _EFFECTIVE,
                "initial": Decimal(initial),
                "maintenance": Decimal(maintenance),
                "source": _MARGIN_SOURCE,
            }
            for symbol, (_, _, initial, maintenance) in _ASSUMED.items()
        ],
    )


def downgrade() -> None:
    symbols = [row[0] for row in _INSTRUMENTS]
    for name in ("instrument_margins", "instrument_costs", "instruments"):
        table = sa.table(name, sa.column("symbol", sa.Text()), schema=_SCHEMA)
        op.execute(table.delete().where(table.c.symbol.in_(symbols)))
