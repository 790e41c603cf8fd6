"""The quality gate's checks by name, in the order in which they are reported, and what each refuses.

Nothing is imported here, so that asset checks can be declared from it without the gate's machinery. How a check
measures is in ``measures``, what must hold in ``suite``, how much is tolerated in policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

QUALITY_CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "bar_count": "fewer bars than the policy's minimum",
        "missing_fields": "bars without a price or a volume",
        "finite_prices": "prices that are no numbers",
        "positive_prices": "prices at or below zero in an instrument that has none",
        "zero_prices": "bars whose four prices are exactly zero: a placeholder where zero is a price, no trade",
        "ohlc_order": "bars whose low or high does not bound open and close",
        "tick_grid": "prices that are no multiple of the tick size",
        "price_scale": "prices outside the instrument's plausible range",
        "price_jumps": "jumps between one bar's close and the next bar's open that no market makes",
        "range_jumps": "jumps too large for the plausible range, in an instrument that may trade below zero",
        "price_spikes": "highs or lows far beyond both neighbouring bars, in price and in the ranges around them",
        "open_close_order": "bars that do not open near the close before them: open and close are swapped",
        "identical_bars": "a feed that stands still: the same prices and volume, bar after bar",
        "unchanged_prices": "a feed that stands still: the same prices, bar after bar",
        "volume_valid": "negative volumes",
        "zero_volume": "too many bars without volume",
        "duplicate_keys": "bars of one contract with the same time",
        "one_contract": "bars of several contracts at one time in a series that is one contract at a time",
        "roll_order": "rolls back to an earlier contract",
        "roll_steps": "rolls between contracts whose prices are too far apart",
        "after_expiry": "bars of a contract after its last trade",
        "time_grid": "bars that do not begin on a whole bar interval",
        "session_dates": "daily bars dated on a day that is no session: partial Sunday bars, UTC days",
        "outside_session": "bars at times when the exchange calendar says closed",
        "not_yet_ended": "bars that had not ended when they were judged, or of the future",
        "copied_sessions": "bars of sessions that repeat the session before, bar for bar",
        "session_gaps": "sessions with a hole in them",
        "missing_time": "too much of the open market without a bar",
        "staleness": "bars that end too long before the range does",
    }
)
"""What each check refuses, as the words after a colon in the reason that it gives."""
