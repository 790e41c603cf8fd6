"""Two lists of the same bars, bar by bar: what is on one side alone, which prices differ, what the volumes add up to.

``overlap`` compares copies of one source and tolerates nothing; ``backup`` compares two providers, which may each lose
a bar or print a bar differently now and then. A bar without volume that the other side leaves out is no difference:
some providers write them, some do not.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.bars import MISSING, MISSING_VOLUME, NOT_FINITE, PRICES, Bars, from_ns, price
from blaid_pipelines.market.reconcile.comparison import NAMED, SHOWN, Comparison, concluded
from blaid_pipelines.market.reconcile.thresholds import ReconciliationThresholds
from blaid_pipelines.reasons import Reason, ReasonCode

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def compare_bars(
    ours: Bars,
    other: Bars,
    thresholds: ReconciliationThresholds,
    *,
    tick_nanos: int,
    kind: Literal["overlap", "backup"] = "backup",
) -> Comparison:
    """Hold ``other`` against ``ours``: the same range of the same contracts, matched by (time, contract).

    The numbers: bars on each side, in both, on one side alone, with other prices (and by how many ticks at most), the
    volumes of the common bars and their factor (other / ours), and the first differing bars with both values; an
    ``overlap`` names every one up to a thousand, and the times of the first and last of all (``differ_between``).
    """
    exact = kind == "overlap"
    named = NAMED if exact else SHOWN
    ours, other = ours.ordered(), other.ordered()
    left, right, only_left, only_right = _matched(ours, other)
    traded_left = only_left if exact else only_left[ours.volume[only_left] != 0]
    traded_right = only_right if exact else only_right[other.volume[only_right] != 0]
    ticks, broken = _tick_differences(ours, other, left, right, tick_nanos)
    limit = 0 if exact else thresholds.max_backup_price_ticks
    prices_differ = broken | (ticks > limit)
    volumes_differ = ours.volume[left] != other.volume[right]
    differ = prices_differ | volumes_differ
    volume, other_volume = _volume(ours, left), _volume(other, right)
    duplicates = [_duplicates(ours), _duplicates(other)]
    numbers: dict[str, Any] = {
        "bars": len(ours),
        "other_bars": len(other),
        "common": len(left),
        "only_ours": len(traded_left),
        "only_other": len(traded_right),
        "untraded_on_one_side": len(only_left) + len(only_right) - len(traded_left) - len(traded_right),
        "price_differs": int(prices_differ.sum()),
        "max_price_ticks": float(ticks[~broken].max()) if (~broken).any() else None,
        "volume_differs": int(volumes_differ.sum()),
        "volume": volume,
        "other_volume": other_volume,
        "volume_factor": None if not volume else round(other_volume / volume, 6),
        "duplicates": duplicates,
        "first_only_ours": [_named(ours, row) for row in traded_left[:named]],
        "first_only_other": [_named(other, row) for row in traded_right[:named]],
        "first_differing": [
            {**_named(ours, left[at]), "ours": _values(ours, left[at]), "other": _values(other, right[at])}
            for at in np.flatnonzero(differ if exact else prices_differ)[:named]
        ],
    }
    if exact and not any(duplicates):
        stamps = np.concatenate([ours.ts_open[left[differ]], ours.ts_open[only_left], other.ts_open[only_right]])
        if len(stamps):
            numbers["differ_between"] = [from_ns(int(stamp)).isoformat() for stamp in (stamps.min(), stamps.max())]
    judge = _judge_copies if exact else _judge_providers
    reasons = judge(numbers, thresholds)
    if any(duplicates):
        reasons.append(_reason(ReasonCode.DUPLICATE_KEY, "a time and contract is there more than once", numbers))
    enough = len(left) >= (1 if exact else thresholds.min_common_bars)
    return concluded(kind, reasons, enough, numbers, f"{len(left)} bars are on both sides")


def _matched(ours: Bars, other: Bars) -> tuple[Int64, Int64, Int64, Int64]:
    """Row numbers: (common in ours, the same in other, only in ours, only in other). A repeated key counts once."""
    left, right = _first_of_keys(ours), _first_of_keys(other)
    names = {name: code for code, name in enumerate(sorted({*ours.contracts, *other.contracts}))}
    keys = []
    for bars, rows in ((ours, left), (other, right)):
        codes = np.array([names[name] for name in bars.contracts] or [0], np.int64)
        key = np.empty(len(rows), [("ts", np.int64), ("contract", np.int64)])
        key["ts"], key["contract"] = bars.ts_open[rows], codes[bars.contract[rows]] if len(rows) else 0
        keys.append(key)
    _, here, there = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    alone_left, alone_right = np.ones(len(left), np.bool_), np.ones(len(right), np.bool_)
    alone_left[here], alone_right[there] = False, False
    return left[here], right[there], left[alone_left], right[alone_right]


def _first_of_keys(bars: Bars) -> Int64:
    repeated = _repeats(bars)
    return np.flatnonzero(~repeated).astype(np.int64)


def _repeats(bars: Bars) -> Mask:
    """Rows whose time and contract the row before has too (bars are ordered)."""
    found = np.zeros(len(bars), np.bool_)
    found[1:] = (bars.ts_open[1:] == bars.ts_open[:-1]) & (bars.contract[1:] == bars.contract[:-1])
    return found


def _duplicates(bars: Bars) -> int:
    return int(_repeats(bars).sum())


def _tick_differences(
    ours: Bars, other: Bars, left: Int64, right: Int64, tick_nanos: int
) -> tuple[npt.NDArray[np.float64], Mask]:
    """Largest difference of the four prices of each pair in ticks, and where one side has no price."""
    largest = np.zeros(len(left), np.float64)
    broken = np.zeros(len(left), np.bool_)
    for name in PRICES:
        mine, theirs = getattr(ours, name)[left], getattr(other, name)[right]
        no_price = np.isin(mine, (MISSING, NOT_FINITE)) | np.isin(theirs, (MISSING, NOT_FINITE))
        broken |= no_price & (mine != theirs)
        gap = np.abs(np.where(no_price, 0, mine) - np.where(no_price, 0, theirs)) / tick_nanos
        largest = np.maximum(largest, gap)
    return largest, broken


def _volume(bars: Bars, rows: Int64) -> int:
    volume = bars.volume[rows]
    return int(volume[volume != MISSING_VOLUME].sum())


def _judge_copies(numbers: dict[str, Any], _: ReconciliationThresholds) -> list[Reason]:
    reasons = []
    if numbers["only_ours"] or numbers["only_other"]:
        text = f"{numbers['only_ours']} bars are here alone and {numbers['only_other']} in the other copy alone"
        reasons.append(_reason(ReasonCode.BARS_MISSING, text, numbers))
    differing = len(numbers["first_differing"])
    if differing:
        more = max(numbers["price_differs"], numbers["volume_differs"])
        reasons.append(_reason(ReasonCode.BARS_DIFFER, f"at least {max(differing, more)} bars differ", numbers))
    return reasons


def _judge_providers(numbers: dict[str, Any], thresholds: ReconciliationThresholds) -> list[Reason]:
    reasons = []
    common = numbers["common"]
    alone = numbers["only_ours"] + numbers["only_other"]
    missing_pct = 100 * alone / (common + alone) if common + alone else 0.0
    numbers["missing_pct"] = round(missing_pct, 4)
    if missing_pct > thresholds.max_backup_missing_pct:
        text = f"{missing_pct:.2f} % of the bars are on one side alone: {numbers['only_ours']} here, "
        reasons.append(_reason(ReasonCode.BARS_MISSING, f"{text}{numbers['only_other']} there", numbers))
    differing_pct = 100 * numbers["price_differs"] / common if common else 0.0
    numbers["differing_pct"] = round(differing_pct, 4)
    if differing_pct > thresholds.max_backup_differing_pct:
        text = (
            f"prices differ in {differing_pct:.2f} % of the common bars, by {numbers['max_price_ticks']} ticks at most"
        )
        reasons.append(_reason(ReasonCode.BARS_DIFFER, text, numbers))
    factor = numbers["volume_factor"]
    low, high = thresholds.min_backup_volume_factor, thresholds.max_backup_volume_factor
    if (factor is None and numbers["other_volume"]) or (factor is not None and not low <= factor <= high):
        text = f"the other side's volume is {factor} times ours, {low} to {high} are allowed"
        reasons.append(_reason(ReasonCode.VOLUME_DIFFERS, text, numbers))
    return reasons


def _reason(code: ReasonCode, text: str, numbers: dict[str, Any]) -> Reason:
    counts = {name: value for name, value in numbers.items() if not isinstance(value, list)}
    return Reason(
        code,
        text,
        "Look at the bars that the reconciliation names; find out which side is wrong and take those bars anew.",
        {
            **counts,
            "first": (numbers["first_differing"] or numbers["first_only_ours"] or numbers["first_only_other"])[:3],
        },
    )


def _named(bars: Bars, row: int) -> dict[str, Any]:
    return {"ts": from_ns(int(bars.ts_open[row])).isoformat(), "contract": bars.contracts[bars.contract[row]]}


def _values(bars: Bars, row: int) -> dict[str, Any]:
    """Prices as decimal texts, None where there is none."""
    prices = {name: price(int(getattr(bars, name)[row])) for name in PRICES}
    shown: dict[str, Any] = {
        name: None if value is None else format(value.normalize(), "f") for name, value in prices.items()
    }
    volume = int(bars.volume[row])
    return {**shown, "volume": None if volume == MISSING_VOLUME else volume}
