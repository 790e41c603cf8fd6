"""What the market data's events show of a series: what a quant reads in the Dagster UI, and where the rest of it is.

Pictures and tables first, numbers that Dagster plots over the runs next, ids and hashes last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from blaid_pipelines.lab.pictures import line_chart
from resources.lab import day_of, markdown_table, picture

if TYPE_CHECKING:
    from blaid_pipelines.lab.portrait import Portrait
    from blaid_pipelines.lab.series import SeriesOutcome

PROOF = ("trace_id", "request_ids", "snapshot_id", "content_hash", "policy_hash")


def bars_event(outcome: SeriesOutcome, portrait: Portrait) -> dict[str, Any]:
    """The metadata of one materialization of ``bars``."""
    snapshot, values = outcome.snapshot, dict(outcome.metadata)
    proof = {name: values.pop(name, None) for name in PROOF}
    kind = "simulated bars" if snapshot.simulated else "bars"
    source = snapshot.provenance.get("source")
    span = f"{snapshot.range_start:%Y-%m-%d %H:%M} to {snapshot.range_end:%Y-%m-%d %H:%M} UTC"
    return {
        "summary": f"{snapshot.bar_count:,} {kind} of {snapshot.symbol} ({snapshot.schema}) from {source}, {span}",
        **series_pictures(portrait),
        "first_and_last_bars": markdown_table(
            ("opens, UTC", "contract", "open", "high", "low", "close", "volume"), portrait.bars
        ),
        "dagster/row_count": snapshot.bar_count,
        "missing_pct": portrait.missing_pct,
        **values,
        **proof,
    }


def series_pictures(portrait: Portrait) -> dict[str, dg.MetadataValue | None]:
    """The last price and the minutes without a bar of each session; None where there is no session to draw."""
    if not portrait.session_dates:
        return {"last_price": None, "missing_minutes": None}
    days = [day_of(date) for date in portrait.session_dates]
    price, missing = portrait.closes, portrait.missing_minutes
    worst = max(range(len(missing)), key=missing.__getitem__)
    return {
        "last_price": picture(
            line_chart("Last price of each session, contracts as they are", days, price),
            f"last price from {price[0]:g} to {price[-1]:g}",
        ),
        "missing_minutes": picture(
            line_chart("Open-market minutes without a bar", days, missing),
            f"at most {missing[worst]:g} minutes without a bar, in session {days[worst]}",
        ),
    }
