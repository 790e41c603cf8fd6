"""From all that the files hold to the one series that was asked for: a contract picked out, or contracts stitched.

A contract is picked by its name. A continuous series comes from files of its own as they are, and is stitched from
files that hold several contracts at one time; how it rolls is decided in ``market.rolls``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from blaid_pipelines.market.bars import DAY_NS, Bars, bar_nanos, from_ns
from blaid_pipelines.market.instruments import InstrumentSpec, instrument_root, is_continuous, is_contract
from blaid_pipelines.market.intake.reading import BARS, FileBars
from blaid_pipelines.market.intake.trades import check_overlap, join, longer_bars
from blaid_pipelines.market.rolls import parse_continuous, stitch
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix

_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Known:
    """What is on record of the product's contracts: open interest by (session date yyyymmdd, contract), and last trade
    times (ns UTC) as definitions name them to somebody on a given date. Both are asked for only where they are needed.
    """

    open_interest: Callable[[], Mapping[tuple[int, str], int]] = dict
    expiries: Callable[[date], Mapping[str, int]] = lambda _: {}


@dataclass(frozen=True)
class Chosen:
    """The bars of the series, and what snapshots say about how they came out of the files.

    ``read_until_ns``: open of the last bar that a series was stitched from; its own bars may end before that.
    """

    bars: Bars
    provenance: dict[str, Any] = field(default_factory=dict)
    read_until_ns: int = 0


def choose(
    files: Sequence[FileBars],
    symbol: str,
    spec: InstrumentSpec,
    schema: str,
    content: str,
    known: Known,
) -> Chosen:
    """The bars of ``symbol`` in ``files``, ordered; trades and one-second bars are made into bars of ``schema`` first.

    Raises :class:`InvalidRequest` where the files hold bars of other contracts only, :class:`StopAndFix`
    (``DATA_UNAVAILABLE``) where they hold none at all, and (``FIELD_MISSING``) where a continuous series
    is of contracts without names.
    """
    held = sorted({name for file in files for name in _used(file.bars)})
    if not held:
        raise _nothing(symbol, schema, files)
    mine = [name for name in held if _belongs(name, symbol)]
    if not mine:
        raise _others(symbol, held, files)
    kept = [_only(file, set(mine)) for file in files]
    bars = _bars(kept, schema, content)
    if not is_continuous(symbol):
        return Chosen(bars, {"contracts_in_files": held} if held != [symbol] else {})
    _require_names(bars, symbol)
    if not (any(file.several for file in kept) or _side_by_side(bars)):
        return Chosen(bars)
    return _stitched(bars, spec, symbol, schema, held, known)


def _belongs(name: str, symbol: str) -> bool:
    """Whether rows of ``name`` may be of ``symbol``; a bare instrument id may be of a continuous one."""
    if not is_continuous(symbol):
        return name == symbol
    return name.startswith("#") or (is_contract(name) and instrument_root(name) == instrument_root(symbol))


def _used(bars: Bars) -> list[str]:
    return [bars.contracts[code] for code in np.unique(bars.contract)]


def _only(file: FileBars, names: set[str]) -> FileBars:
    wanted = np.array([name in names for name in file.bars.contracts], bool)
    bars = file.bars if wanted.all() else file.bars.take(wanted[file.bars.contract])
    return FileBars(file.name, file.sha256, bars, file.simulated, file.dataset, file.end, file.several)


def _bars(files: Sequence[FileBars], schema: str, content: str) -> Bars:
    if content == BARS:
        return Bars.concat(file.bars for file in files)
    parts = sorted(
        ((file.name, file.bars) for file in files if len(file.bars)), key=lambda part: int(part[1].ts_open.min())
    )
    check_overlap(parts)
    return longer_bars(join([rows for _, rows in parts]), bar_nanos(schema))


def _side_by_side(bars: Bars) -> bool:
    """Whether on some UTC day bars of two contracts alternate or share a stamp, as no single series does."""
    ordered = bars.ordered()
    if len(ordered.contracts) < 2:
        return False
    day = ordered.ts_open // DAY_NS
    changes = np.flatnonzero(ordered.contract[1:] != ordered.contract[:-1]) + 1
    same_stamp = ordered.ts_open[changes] == ordered.ts_open[changes - 1]
    within = day[changes][day[changes] == day[changes - 1]]
    return bool(same_stamp.any()) or len(np.unique(within)) < len(within)


def _require_names(bars: Bars, symbol: str) -> None:
    """Without names nobody can tell when a contract expires, nor in which order contracts follow one another."""
    unnamed = [name for name in _used(bars) if name.startswith("#")]
    if unnamed:
        raise StopAndFix(
            Reason(
                ReasonCode.FIELD_MISSING,
                f"the files give only numbers for {len(unnamed)} of the contracts of {symbol}",
                "Import their definitions first: `blaid contracts import FILE...`; then ingest again.",
                {"symbol": symbol, "unnamed": unnamed[:_SHOWN]},
            )
        )


def _stitched(
    bars: Bars,
    spec: InstrumentSpec,
    symbol: str,
    schema: str,
    held: list[str],
    known: Known,
) -> Chosen:
    first, last = int(bars.ts_open.min()), int(bars.ts_open.max()) + bar_nanos(schema)
    interest = known.open_interest() if parse_continuous(symbol)[1] == "n" else None
    expiries = known.expiries(from_ns(first).date())
    stitched = stitch(bars, spec, symbol, load_sessions(spec.session, first, last), interest, expiries)
    rolls: dict[str, Any] = {"contracts_in_files": held, "rolls": [step.as_json() for step in stitched.steps]}
    if stitched.undecided:
        rolls["sessions_left_out"] = stitched.undecided
    return Chosen(stitched.bars.ordered(), rolls, int(bars.ts_open.max()))


def _nothing(symbol: str, schema: str, files: Sequence[FileBars]) -> StopAndFix:
    return StopAndFix(
        Reason(
            ReasonCode.DATA_UNAVAILABLE,
            f"the files hold no {schema} bars of {symbol}",
            "Give files with bars in them.",
            {"files": [file.name for file in files][:_SHOWN]},
        )
    )


def _others(symbol: str, held: list[str], files: Sequence[FileBars]) -> InvalidRequest:
    shown = ", ".join(held[:_SHOWN]) + (f" and {len(held) - _SHOWN} more" if len(held) > _SHOWN else "")
    numbers_only = all(name.startswith("#") for name in held)
    names_them = "Import the definitions of these instrument ids: `blaid contracts import FILE...`."
    return InvalidRequest(
        Reason(
            ReasonCode.INVALID_REQUEST,
            f"the files hold {shown}, and nothing of {symbol}",
            names_them if numbers_only else "Ask for one of these, or give the file that was meant.",
            {"symbol": symbol, "held": held[:_SHOWN], "files": [file.name for file in files][:_SHOWN]},
        )
    )
