"""The fill rules a second time: bar by bar, in plain Python, with prices and dollars as a person would write them.

Slow on purpose, and written without a look at ``kernel``: it is what the kernel is tested against, and the text to
read when a fill surprises. Each step of :meth:`_Replay.on_bar` is a row of ``docs/reference/fill-rules.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from blaid_pipelines.backtest.arrays import LAST_OF_CONTRACT, LAST_OF_SESSION, BarArrays

if TYPE_CHECKING:
    from blaid_pipelines.backtest.engine import BacktestSpec
    from blaid_pipelines.backtest.families.base import Signals


@dataclass(frozen=True)
class _Bar:
    index: int
    ts_open: int
    open: int
    high: int
    low: int
    close: int
    session: int
    flat: int
    contract: str


@dataclass
class _Position:
    side: int
    entry_bar: _Bar
    entry_price: int
    stop_price: int | None
    target_price: int | None
    highest: int
    lowest: int


def reference_trades(spec: BacktestSpec, arrays: BarArrays, signals: Signals, warmup_bars: int) -> list[dict[str, Any]]:
    """One dict per trade with every column of the ledger except the decimal prices; ``entry_ts``, ``exit_ts`` in ns."""
    replay = _Replay(spec)
    wanted = [int(side) for side in signals.side]
    bars = _bars(arrays)
    for bar in bars:
        i = bar.index
        before = bars[i - 1] if i > 0 else None
        side_before = wanted[i - 1] if i > 0 else 0
        # the close of bar i - 1 decides what happens at the open of bar i
        changed = i >= 2 and i - 1 >= warmup_bars and side_before != wanted[i - 2]
        distances = (int(signals.stop_ticks[i - 1]), int(signals.target_ticks[i - 1])) if i > 0 else (0, 0)
        replay.on_bar(bar, before, side_before, changed, *distances, is_last=i == len(bars) - 1)
    return replay.trades


def _bars(arrays: BarArrays) -> list[_Bar]:
    return [
        _Bar(
            i,
            int(arrays.ts_open[i]),
            int(arrays.open[i]),
            int(arrays.high[i]),
            int(arrays.low[i]),
            int(arrays.close[i]),
            int(arrays.session_date[i]),
            int(arrays.flat[i]),
            arrays.contracts[int(arrays.contract[i])],
        )
        for i in range(len(arrays))
    ]


@dataclass
class _Replay:
    spec: BacktestSpec
    trades: list[dict[str, Any]] = field(default_factory=list)
    position: _Position | None = None
    flat_at_next_open: bool = False
    no_entry_in: int | None = None  # the session whose loss limit was reached
    realised: Fraction = Fraction(0)  # dollars, net of costs
    day_start: Fraction = Fraction(0)  # realised plus open, when the session began
    booked_net_cents: int = 0
    booked_commission_cents: int = 0
    booked_slippage_cents: int = 0
    commission: Fraction = Fraction(0)
    slippage: Fraction = Fraction(0)

    # -- money -----------------------------------------------------------------------------------------------------
    def dollars(self, ticks: int) -> Fraction:
        return Fraction(ticks * self.spec.costs.tick_value_microusd * self.spec.contracts, 1_000_000)

    def cost_of_a_side(self) -> Fraction:
        costs = self.spec.costs
        return Fraction(
            (costs.commission_per_side_microusd + costs.fees_per_side_microusd) * self.spec.contracts, 1_000_000
        )

    def open_result(self, price: int) -> Fraction:
        if self.position is None:
            return Fraction(0)
        return self.dollars(self.position.side * (price - self.position.entry_price)) - self.cost_of_a_side()

    # -- one bar ---------------------------------------------------------------------------------------------------
    def on_bar(
        self,
        bar: _Bar,
        before: _Bar | None,
        side_before: int,
        changed: bool,
        stop_ticks: int,
        target_ticks: int,
        *,
        is_last: bool,
    ) -> None:
        if before is None or bar.session != before.session:
            self.day_start = self.realised + (self.open_result(before.close) if before else 0)
        self._exit_at_open(bar, side_before)
        if changed and side_before != 0 and self._may_enter(bar, before):
            self._enter(bar, side_before, stop_ticks, target_ticks)
        self._stop_or_target(bar)
        self._exit_at_close(bar, is_last)
        self._check_daily_loss(bar)

    def _exit_at_open(self, bar: _Bar, side_before: int) -> None:
        if self.position is None:
            return
        if self.flat_at_next_open:
            self._close(bar, bar.open, "DAILY_LOSS", bars_held=bar.index - self.position.entry_bar.index)
        elif side_before != self.position.side:
            self._close(bar, bar.open, "SIGNAL", bars_held=bar.index - self.position.entry_bar.index)
        self.flat_at_next_open = False

    def _may_enter(self, bar: _Bar, before: _Bar | None) -> bool:
        assert before is not None
        if before.flat == LAST_OF_CONTRACT or bar.flat == LAST_OF_CONTRACT:
            return False
        if self.spec.flatten_sessions and LAST_OF_SESSION in (before.flat, bar.flat):
            return False
        if self.no_entry_in == bar.session:
            return False
        equity = Fraction(self.spec.capital_cents, 100) + self.realised
        return Fraction(self.spec.margin_per_contract_cents * self.spec.contracts, 100) <= equity

    def _enter(self, bar: _Bar, side: int, stop_ticks: int, target_ticks: int) -> None:
        fill = bar.open + side * self.spec.costs.slippage_ticks
        self.position = _Position(
            side=side,
            entry_bar=bar,
            entry_price=fill,
            stop_price=fill - side * stop_ticks if stop_ticks else None,
            target_price=fill + side * target_ticks if target_ticks else None,
            highest=fill,
            lowest=fill,
        )

    def _stop_or_target(self, bar: _Bar) -> None:
        position = self.position
        if position is None:
            return
        held = bar.index - position.entry_bar.index + 1
        stop, target, long = position.stop_price, position.target_price, position.side > 0
        stopped = stop is not None and (bar.low <= stop if long else bar.high >= stop)
        reached = target is not None and (bar.high >= target if long else bar.low <= target)
        target_fill = None
        if reached:
            assert target is not None
            target_fill = target
            if self.spec.target_gap_at_open:
                target_fill = max(target, bar.open) if long else min(target, bar.open)
        if stopped:
            assert stop is not None
            gapped = bar.open <= stop if long else bar.open >= stop
            self._see(bar.open)
            self._close(
                bar,
                bar.open if gapped else stop,
                "STOP",
                bars_held=held,
                target_first=target_fill if reached and not gapped else None,
            )
        elif reached:
            assert target_fill is not None
            # the pullback may have come before the target; beyond its fill the position sees nothing any more
            self._see(min(bar.low, target_fill) if long else max(bar.high, target_fill))
            self._close(bar, target_fill, "TARGET", bars_held=held)

    def _exit_at_close(self, bar: _Bar, is_last: bool) -> None:
        if self.position is None:
            return
        self._see(bar.low)
        self._see(bar.high)
        held = bar.index - self.position.entry_bar.index + 1
        if bar.flat == LAST_OF_CONTRACT:
            self._close(bar, bar.close, "ROLL", bars_held=held)
        elif bar.flat == LAST_OF_SESSION and self.spec.flatten_sessions:
            self._close(bar, bar.close, "SESSION_END", bars_held=held)
        elif is_last:
            self._close(bar, bar.close, "DATA_END", bars_held=held)

    def _check_daily_loss(self, bar: _Bar) -> None:
        limit = self.spec.daily_loss_limit_cents
        if limit is None:
            return
        if self.realised + self.open_result(bar.close) - self.day_start <= -Fraction(limit, 100):
            self.no_entry_in = bar.session
            self.flat_at_next_open = self.position is not None

    # -- booking ---------------------------------------------------------------------------------------------------
    def _see(self, price: int) -> None:
        assert self.position is not None
        self.position.highest = max(self.position.highest, price)
        self.position.lowest = min(self.position.lowest, price)

    def _close(
        self, bar: _Bar, market_price: int, reason: str, *, bars_held: int, target_first: int | None = None
    ) -> None:
        position = self.position
        assert position is not None
        self._see(market_price)
        slipped = 0 if reason == "TARGET" else self.spec.costs.slippage_ticks
        fill = market_price - position.side * slipped
        net = self.dollars(position.side * (fill - position.entry_price)) - 2 * self.cost_of_a_side()
        self.realised += net
        self.commission += 2 * self.cost_of_a_side()
        self.slippage += self.dollars(self.spec.costs.slippage_ticks + slipped)
        net_cents = _cents(self.realised) - self.booked_net_cents
        commission_cents = _cents(self.commission) - self.booked_commission_cents
        slippage_cents = _cents(self.slippage) - self.booked_slippage_cents
        self.booked_net_cents += net_cents
        self.booked_commission_cents += commission_cents
        self.booked_slippage_cents += slippage_cents
        gain = 0 if target_first is None else position.side * (target_first - fill)
        rise, fall = position.highest - position.entry_price, position.entry_price - position.lowest
        mfe, mae = (rise, fall) if position.side > 0 else (fall, rise)
        self.trades.append(
            {
                "entry_ts": position.entry_bar.ts_open,
                "exit_ts": bar.ts_open,
                "side": position.side,
                "contracts": self.spec.contracts,
                "entry_ticks": position.entry_price,
                "exit_ticks": fill,
                "exit_reason": reason,
                "gross_pnl_cents": net_cents + commission_cents + slippage_cents,
                "commission_cents": commission_cents,
                "slippage_cents": slippage_cents,
                "net_pnl_cents": net_cents,
                "target_first_net_pnl_cents": net_cents + _cents(self.dollars(gain)),
                "mae_ticks": mae,
                "mfe_ticks": mfe,
                "mae_cents": _cents(self.dollars(mae)),
                "mfe_cents": _cents(self.dollars(mfe)),
                "bars_held": bars_held,
                "ambiguous": target_first is not None,
                "session_date": bar.session,
                "contract": bar.contract,
            }
        )
        self.position = None


def _cents(dollars: Fraction) -> int:
    """Rounded to whole cents, halves up."""
    return (dollars * 100 + Fraction(1, 2)).__floor__()
