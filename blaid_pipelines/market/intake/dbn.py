"""DBN files as bars or trades of every contract in them. The format itself is read in ``providers.databento.dbn``.

A DBN file says its schema, zone, stamps and end itself; what is asked must agree with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blaid_pipelines.market.bars import MISSING, NOT_FINITE, bars_of_dbn
from blaid_pipelines.market.instruments import is_continuous
from blaid_pipelines.market.intake.reading import BARS, SECONDS, TRADES, Ask, FileBars, does_not_fit
from blaid_pipelines.market.intake.trades import trade_rows
from blaid_pipelines.providers.databento.dbn import DbnBars, DbnTrades, open_dbn, read_dbn, read_trades

_TRADE_SCHEMAS = ("trades", "tbbo")


def read_dbn_file(path: Path, digest: str, ask: Ask) -> FileBars:
    """The bars or trades of a DBN file. Raises as ``read_dbn``; :class:`InvalidRequest` for what contradicts it."""
    file = open_dbn(path)
    problem = _contradiction(file.schema, ask)
    if problem is not None:
        asked = {"symbol": ask.symbol, "schema": ask.schema, "content": ask.content, "stamp": ask.stamp, "tz": ask.tz}
        raise does_not_fit(path.name, problem, asked)
    # What a gateway made up about contracts names its own bars, and no others.
    names = ask.simulated_names if file.simulated else ask.names
    held: DbnBars | DbnTrades
    if ask.content == TRADES:
        held = read_trades(file, names)
        price = held.price.copy()
        price[(price != MISSING) & (np.abs(price) > NOT_FINITE)] = NOT_FINITE
        rows = trade_rows(held.ts_recv, price, held.size, held.contract_code, held.contracts)
    else:
        held = read_dbn(file, names)
        rows = bars_of_dbn(held)
    return FileBars(path.name, digest, rows, file.simulated, held.dataset, held.end, _several(path, held, ask))


def _contradiction(schema: str | None, ask: Ask) -> str | None:
    if ask.stamp not in {None, "open"} or ask.tz not in {None, "UTC"} or ask.time_unit is not None:
        return "DBN stamps bars at their open in UTC: leave --stamp, --tz and --time-unit out"
    if schema in _TRADE_SCHEMAS and ask.content != TRADES:
        return f"it holds {schema}: say --content trades to make bars of them"
    if schema == SECONDS and ask.content != SECONDS:
        return "it holds ohlcv-1s: say --content ohlcv-1s to make longer bars of them"
    if ask.content == BARS and schema is not None and schema.startswith("ohlcv") and schema != ask.schema:
        return f"it holds {schema}: use --schema {schema}"
    if ask.content == TRADES and schema is not None and schema.startswith("ohlcv"):
        return f"it holds {schema}, not trades"
    if ask.content == SECONDS and schema in {"ohlcv-1m", "ohlcv-1h", "ohlcv-1d", *_TRADE_SCHEMAS}:
        return f"it holds {schema}, not one-second bars"
    return None


def _several(path: Path, file: DbnBars | DbnTrades, ask: Ask) -> bool:
    """Whether the file holds contracts side by side; a continuous symbol's own file does not, and is no other's."""
    if file.stype_in != "continuous":
        return True
    if file.symbols != (ask.symbol,) or not is_continuous(ask.symbol):
        held = ", ".join(file.symbols[:5])
        raise does_not_fit(path.name, f"it is about {held}, one series", {"symbol": ask.symbol})
    return False
