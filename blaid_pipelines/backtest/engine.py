"""One backtest: specification and bars in, trades, equity, metrics and a hash of the result out.

The fill rules are compiled in ``kernel`` and repeated readably in ``reference``; the money of each trade is made in
``ledger``; what the numbers mean is in ``metrics``. Nothing is written anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.ledger import equity_table, result_hash, session_dates, trades_table
from blaid_pipelines.backtest.metrics import Metrics, from_trades
from blaid_pipelines.backtest.strategy import Params, Signals, check_params, get_family
from blaid_pipelines.ids import sha256_hex
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, Refused

if TYPE_CHECKING:
    import pyarrow as pa

# The modules whose text decides a result: fills, money, metrics, and the form in which bars reach them.
_ENGINE_MODULES = ("arrays.py", "kernel.py", "ledger.py", "metrics.py", "families/base.py")


def _engine_version() -> str:
    folder = Path(__file__).parent
    return "1-" + sha256_hex(b"\0".join((folder / name).read_bytes() for name in _ENGINE_MODULES))[:16]


ENGINE_VERSION = _engine_version()
"""Changes with the text of the engine's modules by itself: results of two versions are not compared."""

MICROUSD_PER_CENT = 10_000


@dataclass(frozen=True, slots=True)
class CostModel:
    """What a contract is worth and costs. Money in millionths of a dollar, per contract and side; slippage in ticks."""

    tick_value_microusd: int
    commission_per_side_microusd: int
    fees_per_side_microusd: int
    slippage_ticks: int


@dataclass(frozen=True, slots=True)
class BacktestSpec:
    """Everything a backtest reads besides bars. Checked when made: :class:`InvalidRequest` with every violation.

    ``daily_loss_limit_cents``: positive, None for no limit. ``flatten_sessions``: flat at each session's end.
    ``target_gap_at_open``: a bar that opens beyond the target fills there instead of at the target.
    """

    family: str
    params: Params
    costs: CostModel
    capital_cents: int
    contracts: int
    margin_per_contract_cents: int
    daily_loss_limit_cents: int | None = None
    flatten_sessions: bool = True
    target_gap_at_open: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        least = {
            "tick_value_microusd": (self.costs.tick_value_microusd, 1),
            "commission_per_side_microusd": (self.costs.commission_per_side_microusd, 0),
            "fees_per_side_microusd": (self.costs.fees_per_side_microusd, 0),
            "slippage_ticks": (self.costs.slippage_ticks, 0),
            "capital_cents": (self.capital_cents, 1),
            "contracts": (self.contracts, 1),
            "margin_per_contract_cents": (self.margin_per_contract_cents, 0),
        }
        if self.daily_loss_limit_cents is not None:
            least["daily_loss_limit_cents"] = (self.daily_loss_limit_cents, 1)
        reasons = [
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{name} is {value!r}; a backtest needs a whole number of at least {low}.",
                "Correct the specification.",
                {"field": name, "value": str(value), "least": low},
            )
            for name, (value, low) in least.items()
            if isinstance(value, bool) or not isinstance(value, int) or value < low
        ]
        if reasons:
            raise InvalidRequest(*reasons)

    def as_json(self) -> dict[str, Any]:
        """The specification as JSON-ready values; equal specifications give equal documents."""
        return {
            "family": self.family,
            "params": dict(self.params),
            "costs": {
                "tick_value_microusd": self.costs.tick_value_microusd,
                "commission_per_side_microusd": self.costs.commission_per_side_microusd,
                "fees_per_side_microusd": self.costs.fees_per_side_microusd,
                "slippage_ticks": self.costs.slippage_ticks,
            },
            "capital_cents": self.capital_cents,
            "contracts": self.contracts,
            "margin_per_contract_cents": self.margin_per_contract_cents,
            "daily_loss_limit_cents": self.daily_loss_limit_cents,
            "flatten_sessions": self.flatten_sessions,
            "target_gap_at_open": self.target_gap_at_open,
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> BacktestSpec:
        """The inverse of :meth:`as_json`, for a recorded session that is run again."""
        values = dict(document)
        return BacktestSpec(costs=CostModel(**values.pop("costs")), **values)


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """``trades``: one row per trade (``ledger.TRADE_SCHEMA``); ``equity``: one row per session, traded or not."""

    trades: pa.Table
    equity: pa.Table
    metrics: Metrics
    result_hash: str
    engine_version: str = field(default=ENGINE_VERSION)


def run_backtest(spec: BacktestSpec, arrays: BarArrays) -> BacktestResult:
    """Run ``spec`` over ``arrays``.

    Raises :class:`InvalidRequest` (STRATEGY_UNKNOWN, PARAMETER_INVALID) and :class:`Refused` (BARS_UNSUITED,
    NOT_ENOUGH_BARS, MARGIN_EXCEEDS_CAPITAL): a run that could not have traded is not reported as one that chose not to.
    """
    family = get_family(spec.family)
    params = check_params(family, spec.params)
    warmup = family.warmup_for(params, family.require_suited(arrays, params))
    _require_enough(spec, len(arrays), warmup)
    signals = family.signals(arrays, params)
    trades = simulate(spec, arrays, signals, warmup)
    return result_of(spec, arrays, trades)


def simulate(spec: BacktestSpec, arrays: BarArrays, signals: Signals, warmup_bars: int) -> pa.Table:
    """The trade ledger of any ``signals`` under the fill rules; the strategy of ``spec`` is not asked."""
    _check_signals(signals, len(arrays))
    return trades_table(_fills(spec, arrays, signals, warmup_bars), spec, arrays)


def result_of(spec: BacktestSpec, arrays: BarArrays, trades: pa.Table) -> BacktestResult:
    """Equity, metrics and hash of a ledger over the sessions of ``arrays``."""
    sessions = session_dates(arrays)
    equity = equity_table(trades, sessions, spec.capital_cents)
    metrics = from_trades(trades, sessions, spec.capital_cents, bars=len(arrays))
    digest = result_hash(ENGINE_VERSION, spec.as_json(), trades, equity)
    return BacktestResult(trades=trades, equity=equity, metrics=metrics, result_hash=digest)


def _fills(spec: BacktestSpec, arrays: BarArrays, signals: Signals, warmup_bars: int) -> NDArray[np.int64]:
    from blaid_pipelines.backtest import kernel

    change = kernel.changes(signals.side, warmup_bars)
    fills = np.zeros((len(change), kernel.FILL_COLUMNS), dtype=np.int64)
    costs, limit = spec.costs, spec.daily_loss_limit_cents
    count = kernel.walk(
        arrays.open,
        arrays.high,
        arrays.low,
        arrays.close,
        arrays.session_date,
        arrays.flat,
        signals.side,
        signals.stop_ticks,
        signals.target_ticks,
        change,
        costs.tick_value_microusd * spec.contracts,
        (costs.commission_per_side_microusd + costs.fees_per_side_microusd) * spec.contracts,
        costs.slippage_ticks,
        spec.capital_cents * MICROUSD_PER_CENT,
        spec.margin_per_contract_cents * spec.contracts * MICROUSD_PER_CENT,
        -1 if limit is None else limit * MICROUSD_PER_CENT,
        spec.flatten_sessions,
        spec.target_gap_at_open,
        fills,
    )
    return fills[:count]


def _require_enough(spec: BacktestSpec, bars: int, warmup: int) -> None:
    if bars < warmup + 2:
        raise Refused(
            Reason(
                ReasonCode.NOT_ENOUGH_BARS,
                f"{spec.family} needs {warmup} bars of warm-up and two more to trade; there are {bars}.",
                "Pull a longer range or choose shorter windows.",
                {"bars": bars, "warmup_bars": warmup, "needed": warmup + 2},
            )
        )
    margin = spec.margin_per_contract_cents * spec.contracts
    if margin > spec.capital_cents:
        raise Refused(
            Reason(
                ReasonCode.MARGIN_EXCEEDS_CAPITAL,
                f"{spec.contracts} contract(s) tie up {margin} cents of margin; the capital is {spec.capital_cents}.",
                "Give the bot more capital, fewer contracts or a smaller product.",
                {
                    "margin_cents": margin,
                    "capital_cents": spec.capital_cents,
                    "contracts": spec.contracts,
                    "margin_per_contract_cents": spec.margin_per_contract_cents,
                },
            )
        )


def _check_signals(signals: Signals, bars: int) -> None:
    """A strategy that returns another shape or type is a bug in it: ``ValueError`` names the column."""
    for name, dtype in (("side", np.int8), ("stop_ticks", np.int32), ("target_ticks", np.int32)):
        column = getattr(signals, name)
        if column.dtype != dtype or column.shape != (bars,) or not column.flags.c_contiguous:
            raise ValueError(f"signals.{name}: {column.dtype}{column.shape}, wanted {np.dtype(dtype)}[{bars}]")
    sides = signals.side
    if bars and (sides.min() < -1 or sides.max() > 1 or min(signals.stop_ticks.min(), signals.target_ticks.min()) < 0):
        raise ValueError("signals: side must be -1, 0 or 1, distances at least 0")
