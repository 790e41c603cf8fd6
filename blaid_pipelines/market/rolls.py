"""Rolls: which contract a continuous series holds in each session, and the price step between two contracts.

Pure functions over bars, sessions and expiries; no store and no files. The contract of a session is decided from what
was known at the close of the session before, and a roll happens between two sessions, so that nobody who trades the
series ever holds two contracts. Prices stay true here; taking the steps out for signals is ``backtest.arrays``.

Rules of a symbol ``ROOT.rule.rank`` (Databento's spelling):

* ``c`` by expiry: the nearest contract that trades through the whole session. A contract is left before the session of
  its last trading day, which it does not trade to the end.
* ``v`` by volume: the contract with the most volume in the session before.
* ``n`` by open interest: the contract with the most. A session's open interest is published during the next one, so
  the choice for a session rests on the one before the last.

Rank 0 is the lead. Rank r is the r-th of the contracts that expire after the lead, in the order of the rule. Ties go to
the earlier expiry. A series never rolls back to an earlier expiry. A contract without a trade in the session before
(for ranks above 0: in the three before) is left. Where no contract is known to trade (the first session of the data, or
files that begin at the roll), rule ``c`` takes the nearest that trades in the session itself; ``v`` and ``n`` take
none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from blaid_pipelines.market.bars import DAY_NS, MISSING, MISSING_VOLUME, NOT_FINITE, Bars, from_ns
from blaid_pipelines.market.expiry import (
    MONTH_LETTERS,
    RULES,
    contract_month,
    contract_of,
    contract_root,
    expiry_ns,
    last_trading_day,
)
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, Refused

if TYPE_CHECKING:
    from blaid_pipelines.market.bars import Int32
    from blaid_pipelines.market.instruments import InstrumentSpec
    from blaid_pipelines.market.sessions import Sessions

Basis = Literal["same_time", "first_open_minus_last_close", "unknown"]

_SYMBOL = re.compile(r"([A-Z0-9]{1,4})\.([cnv])\.(0|[1-9]\d?)")
_STALE_LEAD, _STALE_OTHER = 1, 3  # sessions without a trade after which a contract is left
_NEXT_LIFE_NS = 300 * DAY_NS  # after such a pause a one-digit year may be that of the next decade
_SPREAD_BARS = 15  # bars seen together, latest first, whose median spread is the step


@dataclass(frozen=True, slots=True)
class RollStep:
    """One roll: at ``ts_ns`` (open of the first bar of the new contract) prices step up by ``step_nanos`` (1e-9).

    ``basis``: ``same_time`` where both contracts were seen in the same bars before the roll (median spread of their
    closes), ``first_open_minus_last_close`` where they were not, which contains the market's own move between the two
    bars; ``unknown`` (step None) where one of those prices is missing.
    """

    ts_ns: int
    from_contract: str
    to_contract: str
    step_nanos: int | None
    basis: Basis

    def as_json(self) -> dict[str, Any]:
        """JSON values; the inverse of :meth:`from_json`."""
        return {
            "ts_ns": self.ts_ns,
            "from": self.from_contract,
            "to": self.to_contract,
            "step_nanos": self.step_nanos,
            "basis": self.basis,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> RollStep:
        """A step as :meth:`as_json` wrote it. Raises ``KeyError`` or ``ValueError`` for anything else."""
        if value["basis"] not in ("same_time", "first_open_minus_last_close", "unknown"):
            raise ValueError(f"unknown basis {value['basis']!r}")
        step = value["step_nanos"]
        return RollStep(
            int(value["ts_ns"]), str(value["from"]), str(value["to"]), None if step is None else int(step),
            value["basis"],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stitched:
    """A continuous series: ``bars`` hold one contract at a time.

    ``choices``: (session date yyyymmdd, contract) of every session that has one. ``undecided``: dates of sessions that
    had bars, but for whose choice nothing was known; their bars are left out.
    """

    bars: Bars
    steps: list[RollStep]
    choices: list[tuple[int, str]]
    undecided: list[int]


@dataclass(frozen=True, slots=True)
class CalendarRoll:
    """One contract of a roll calendar by expiry: last trade (ns UTC), and the first session of the one after it."""

    contract: str
    last_trade_ns: int
    next_contract: str
    roll_session: date


def parse_continuous(symbol: str) -> tuple[str, str, int]:
    """(root, rule, rank) of ``ES.v.0``. Raises :class:`InvalidRequest` for any other form."""
    match = _SYMBOL.fullmatch(symbol)
    if match is None:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{symbol} is no continuous symbol",
                "Give ROOT.rule.rank: ES.c.0 (expiry), ES.v.0 (volume) or ES.n.0 (open interest).",
                {"symbol": symbol},
            )
        )
    return match[1], match[2], int(match[3])


def stitch(
    bars: Bars,
    spec: InstrumentSpec,
    symbol: str,
    sessions: Sessions,
    open_interest: Mapping[tuple[int, str], int] | None = None,
    expiries: Mapping[str, int] | None = None,
) -> Stitched:
    """The continuous series ``symbol`` from bars of several contracts of ``spec``, with ``sessions`` that cover them.

    ``open_interest``: contracts open at the end of a session, by (session date yyyymmdd, contract); needed by rule
    ``n`` alone. ``expiries``: last trade times (ns UTC) from definitions, which beat the product's rule.

    Bars outside of all sessions stay with the session before them, so that the quality gate sees them; where the first
    session is not decided by what comes before it (rules ``v`` and ``n``), its bars are left out. Raises
    :class:`InvalidRequest` (another root, an unknown contract, rule ``n`` without open interest) and :class:`Refused`
    (FIELD_MISSING: rule ``v`` with volumes missing; DATA_UNAVAILABLE: no session can be decided).
    """
    root, rule, rank = parse_continuous(symbol)
    if root != spec.symbol:
        raise InvalidRequest(
            Reason(
                ReasonCode.INSTRUMENT_MISMATCH,
                f"{symbol} is no series of {spec.symbol}",
                f"Name a series of {spec.symbol}, such as {spec.symbol}.c.0.",
                {"symbol": symbol, "root": spec.symbol},
            )
        )
    if rule == "n" and not open_interest:
        raise InvalidRequest(
            Reason(
                ReasonCode.EVIDENCE_MISSING,
                f"{symbol} rolls by open interest, and none is known",
                "Import the open interest of the contracts first, or ask for the series by expiry (c) or volume (v).",
                {"symbol": symbol},
            )
        )
    bars = bars.ordered()
    if rule == "v":
        _require_volume(bars, symbol)
    bars, names = _lives(bars)
    expiries = {_life(names, name, from_ns(ends).date()): ends for name, ends in (expiries or {}).items()}
    market = _Market(bars, spec, sessions, expiries)
    interest = {(day, _life(names, name, _date(day))): count for (day, name), count in (open_interest or {}).items()}
    choices, undecided = _choose(market, rule, rank, interest)
    chosen = np.full(max(len(sessions), 1) + 1, -1, np.int64)  # the last entry is for bars before every session
    for index, code in choices.items():
        chosen[index] = code
    kept = bars.take(chosen[market.session] == bars.contract) if len(bars) else bars
    if not len(kept):
        raise Refused(
            Reason(
                ReasonCode.DATA_UNAVAILABLE,
                f"no session of {symbol} can be decided from these bars",
                "Give bars of the session before the first one wanted too: it decides the contract.",
                {"symbol": symbol, "sessions": len(undecided), "contracts": list(bars.contracts)},
            )
        )
    dates = sessions.session_date
    own = [names.get(name, name) for name in bars.contracts]
    steps = _steps(bars, kept.ordered(), market.session)
    return Stitched(
        _renamed(kept, own).ordered(),
        [
            replace(
                step,
                from_contract=names.get(step.from_contract, step.from_contract),
                to_contract=names.get(step.to_contract, step.to_contract),
            )
            for step in steps
        ],
        [(int(dates[index]), own[code]) for index, code in sorted(choices.items())],
        [int(dates[index]) for index in undecided],
    )


def rolls_of(bars: Bars, steps: Sequence[RollStep] | None = None) -> list[RollStep]:
    """The rolls of a series that holds one contract at a time, in order; ``steps`` known at the same time come first.

    Bars of several contracts at one time are no such series and have no rolls: the list is empty.
    """
    bars = bars.ordered()
    if len(bars) < 2 or bool((np.diff(bars.ts_open) <= 0).any()):
        return []
    found: list[RollStep] = []
    for row in (np.flatnonzero(np.diff(bars.contract)) + 1).tolist():
        old, new = bars.contracts[bars.contract[row - 1]], bars.contracts[bars.contract[row]]
        before, at = int(bars.ts_open[row - 1]), int(bars.ts_open[row])
        known = next(
            (
                step
                for step in steps or ()
                if (step.from_contract, step.to_contract) == (old, new)
                and before < step.ts_ns <= at
                and step.step_nanos is not None
            ),
            None,
        )
        if known is not None:
            found.append(RollStep(at, old, new, known.step_nanos, known.basis))
            continue
        last, first = int(bars.close[row - 1]), int(bars.open[row])
        if {last, first} & {MISSING, NOT_FINITE}:
            found.append(RollStep(at, old, new, None, "unknown"))
        else:
            found.append(RollStep(at, old, new, first - last, "first_open_minus_last_close"))
    return found


def roll_calendar(root: str, months: str, first_year: int, last_year: int) -> list[CalendarRoll]:
    """Every contract of the ``months`` (letters) of the years, with its last trade and the session its successor leads.

    By expiry, rank 0. Raises :class:`InvalidRequest` for a root without an expiry rule, or years outside 2001 to 2098.
    """
    letters = "FGHJKMNQUVXZ"
    named = [
        (year, letters.index(letter) + 1) for year in range(first_year, last_year + 2) for letter in sorted(months)
    ]
    rolls: list[CalendarRoll] = []
    for (year, month), (next_year, next_month) in pairwise(named):
        if year > last_year:
            break
        day = last_trading_day(root, year, month)
        contract = contract_of(root, year, month)
        rolls.append(
            CalendarRoll(contract, expiry_ns(root, contract, day), contract_of(root, next_year, next_month), day)
        )
    return rolls


def has_calendar(root: str) -> bool:
    """Whether an expiry rule of ``root`` is known."""
    return root in RULES


def _lives(bars: Bars) -> tuple[Bars, dict[str, str]]:
    """Bars in which names that come round after ten years have two digits for the year; own names by such longer ones.

    Where no name comes twice, the bars as they are.
    """
    codes, longer = bars.contract.copy(), list(bars.contracts)
    names: dict[str, str] = {}
    for code, name in enumerate(bars.contracts):
        rows = np.flatnonzero(bars.contract == code)
        pauses = np.flatnonzero(np.diff(bars.ts_open[rows]) > _NEXT_LIFE_NS) + 1
        for life in np.split(rows, pauses) if len(pauses) else ():
            year, month = contract_month(name, from_ns(int(bars.ts_open[life[0]])).date())
            names[_longer(name, year, month)] = name
            codes[life] = len(longer)
            longer.append(_longer(name, year, month))
    if not names:
        return bars, names
    numbered = replace(bars, contract=codes, contracts=tuple(map(str, range(len(longer)))))
    return _renamed(numbered, longer).ordered(), names


def _longer(name: str, year: int, month: int) -> str:
    return f"{contract_root(name)}{MONTH_LETTERS[month - 1]}{year % 100:02d}"


def _life(names: Mapping[str, str], name: str, near: date) -> str:
    """What :func:`_lives` calls the contract that ``name`` means on ``near``."""
    if name not in names.values():
        return name
    return _longer(name, *contract_month(name, near))


def _renamed(bars: Bars, names: Sequence[str]) -> Bars:
    """The bars with a name for each code; codes of one name become one."""
    whole = tuple(dict.fromkeys(names))
    place = {name: code for code, name in enumerate(whole)}
    codes = np.array([place[name] for name in names] or [0], np.int32)[bars.contract]
    return replace(bars, contract=codes, contracts=whole)


def _date(yyyymmdd: int) -> date:
    return date(yyyymmdd // 10_000, yyyymmdd // 100 % 100, yyyymmdd % 100)


class _Market:
    """What traded in each session: volume by (session, contract), and each contract's last trade."""

    def __init__(self, bars: Bars, spec: InstrumentSpec, sessions: Sessions, expiries: Mapping[str, int]) -> None:
        self.session: Int32 = (np.searchsorted(sessions.open_ns, bars.ts_open, side="right") - 1).astype(np.int32)
        self.close_ns = sessions.close_ns
        self.dates = sessions.session_date
        self.contracts = bars.contracts
        self.expiry = [_expiry(bars, code, spec, expiries) for code in range(len(bars.contracts))]
        self.volume = np.zeros((len(sessions), len(bars.contracts)), np.int64)
        self.traded = np.zeros((len(sessions), len(bars.contracts)), np.bool_)
        # a bar after its session's close belongs to no session, and decides nothing
        inside = sessions.session_of(bars.ts_open) >= 0
        where = (self.session[inside], bars.contract[inside])
        volume = bars.volume[inside]
        np.add.at(self.volume, where, np.maximum(volume, 0))
        moved = volume != 0  # a bar without volume is no trade; a volume not given may be one
        self.traded[where[0][moved], where[1][moved]] = True
        present = np.unique(self.session[self.session >= 0])
        self.sessions: list[int] = [int(index) for index in present]
        """Sessions that have bars, in order."""

    def alive(self, index: int) -> list[int]:
        """Contracts that trade through the whole session, nearest expiry first."""
        codes = [code for code, last in enumerate(self.expiry) if last >= int(self.close_ns[index])]
        return sorted(codes, key=lambda code: (self.expiry[code], self.contracts[code]))


def _expiry(bars: Bars, code: int, spec: InstrumentSpec, known: Mapping[str, int]) -> int:
    contract = bars.contracts[code]
    seen = from_ns(int(bars.ts_open[int(np.argmax(bars.contract == code))])).date()
    ends = known.get(contract)
    # a definition of the same name from another decade is about another contract
    if ends is not None and contract_month(contract, seen) == contract_month(contract, from_ns(ends).date()):
        return ends
    return expiry_ns(spec.symbol, contract, seen)


def _require_volume(bars: Bars, symbol: str) -> None:
    missing = bars.volume == MISSING_VOLUME
    if missing.any():
        raise Refused(
            Reason(
                ReasonCode.FIELD_MISSING,
                f"{symbol} rolls by volume, and {int(missing.sum())} of {len(bars)} bars have none",
                "Give bars with volume, or ask for the series by expiry (c).",
                {"symbol": symbol, "bars": int(missing.sum()), "of": len(bars)},
            )
        )


def _choose(
    market: _Market, rule: str, rank: int, open_interest: Mapping[tuple[int, str], int]
) -> tuple[dict[int, int], list[int]]:
    """Contract code by session index, and the sessions that nothing decides."""
    choices: dict[int, int] = {}
    undecided: list[int] = []
    lead: int | None = None
    held: int | None = None
    for position, index in enumerate(market.sessions):
        past = market.sessions[:position]
        alive = market.alive(index)
        order = _order(market, rule, past, alive, open_interest)
        seen = _recent(market, past, alive, _STALE_LEAD)
        if rule == "c" and not seen:
            seen = [code for code in alive if market.traded[index, code]]
        lead = _lead(market, order(seen), lead, alive, past)
        if lead is None:
            undecided.append(index)
            continue
        pick = lead
        if rank:
            seen = _recent(market, past, alive, _STALE_OTHER) or seen
            after = [code for code in seen if _later(market, code, lead)]
            ordered = order(after)
            wanted = ordered[rank - 1] if len(ordered) >= rank else None
            if held is not None and held in after and (wanted is None or _later(market, held, wanted)):
                wanted = held
            if wanted is None:
                undecided.append(index)
                continue
            pick = wanted
        held = pick
        choices[index] = pick
    return choices, undecided


def _lead(market: _Market, ordered: list[int], held: int | None, alive: list[int], past: list[int]) -> int | None:
    """The first in order, but never a contract that expires before the one held while that one can be held."""
    wanted = ordered[0] if ordered else None
    if held is None:
        return wanted
    can_hold = held in alive and bool(past) and bool(market.traded[past[-1], held])
    if wanted is not None and (_later(market, wanted, held) or (wanted == held)):
        return wanted
    if can_hold:
        return held
    later = [code for code in ordered if _later(market, code, held)]
    return later[0] if later else (held if held in alive else None)


def _recent(market: _Market, past: list[int], alive: list[int], sessions: int) -> list[int]:
    """Contracts of ``alive`` that traded in the last sessions."""
    return [code for code in alive if past and market.traded[past[-sessions:], code].any()]


def _order(
    market: _Market,
    rule: str,
    past: list[int],
    alive: list[int],
    open_interest: Mapping[tuple[int, str], int],
) -> Callable[[list[int]], list[int]]:
    """A function that puts contract codes into the rule's order; what the rule knows nothing of is left out."""
    rank_of = {code: position for position, code in enumerate(alive)}
    if rule == "c":
        return lambda codes: sorted(codes, key=lambda code: rank_of[code])
    if rule == "v":
        if not past:
            return lambda codes: []
        volume = market.volume[past[-1]]
        return lambda codes: sorted(codes, key=lambda code: (-int(volume[code]), rank_of[code]))
    known = _open_interest(market, past, open_interest)
    return lambda codes: sorted(
        (code for code in codes if code in known), key=lambda code: (-known[code], rank_of[code])
    )


def _open_interest(market: _Market, past: list[int], open_interest: Mapping[tuple[int, str], int]) -> dict[int, int]:
    """What was published at the close of the session before: each contract's newest value before that session."""
    if not past:
        return {}
    published_before = int(market.dates[past[-1]])
    newest: dict[str, tuple[int, int]] = {}
    for (day, contract), value in open_interest.items():
        if day < published_before and day > newest.get(contract, (0, 0))[0]:
            newest[contract] = (day, value)
    return {code: newest[name][1] for code, name in enumerate(market.contracts) if name in newest}


def _later(market: _Market, code: int, than: int) -> bool:
    return (market.expiry[code], market.contracts[code]) > (market.expiry[than], market.contracts[than])


def _steps(bars: Bars, kept: Bars, session: Int32) -> list[RollStep]:
    """The rolls of ``kept``, with the spread of both contracts in the last session of the old one where they met."""
    same_time: list[RollStep] = []
    for roll in rolls_of(kept):
        last_ns = kept.ts_open[int(np.searchsorted(kept.ts_open, roll.ts_ns)) - 1]
        last_session = session[int(np.searchsorted(bars.ts_open, last_ns))]
        rows = bars.take(session == last_session)
        spread = _spread(rows, roll.from_contract, roll.to_contract)
        if spread is not None:
            same_time.append(RollStep(roll.ts_ns, roll.from_contract, roll.to_contract, spread, "same_time"))
    return rolls_of(kept, same_time)


def _spread(bars: Bars, old: str, new: str) -> int | None:
    """Median (the lower one, so that it stays on the tick grid) of close of ``new`` minus close of ``old``."""
    closes = []
    for contract in (old, new):
        if contract not in bars.contracts:
            return None
        mine = bars.take(
            (bars.contract == bars.contracts.index(contract))
            & (bars.close != MISSING)
            & (bars.close != NOT_FINITE)
            & (bars.volume != 0)
        )
        closes.append(dict(zip(mine.ts_open.tolist(), mine.close.tolist(), strict=True)))
    common = sorted(closes[0].keys() & closes[1].keys())[-_SPREAD_BARS:]
    spreads = sorted(closes[1][ts] - closes[0][ts] for ts in common)
    return spreads[(len(spreads) - 1) // 2] if spreads else None
