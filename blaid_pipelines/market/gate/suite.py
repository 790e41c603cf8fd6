"""The quality gate's expectations: which measure must hold, in great-expectations' own terms, and what it found.

Each check is one expectation over one measured frame. Nothing is passed by default: an expectation that raised, gave
no result, or looked at other rows than it was given, is UNKNOWN. The library takes seconds to import and is imported
when a suite runs, never before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blaid_pipelines.market.gate.checks import QUALITY_CHECKS
from blaid_pipelines.market.gate.measures import Measures
from blaid_pipelines.market.gate.thresholds import QualityThresholds
from blaid_pipelines.reasons import ReasonCode

PASS, FAIL, UNKNOWN = "PASS", "FAIL", "UNKNOWN"

Rule = tuple[str, dict[str, Any]]
"""An expectation's class name in ``great_expectations.expectations`` and its arguments."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name in ``QUALITY_CHECKS``, the frame it reads, the rule, and what to advise when it fails.

    ``threshold`` names the field of the policy that bounds it, ``unit`` what its numbers count.
    """

    name: str
    frame: str
    column: str | None
    rule: Callable[[QualityThresholds], Rule]
    code: ReasonCode
    fix: str
    threshold: str | None = None
    unit: str = ""

    @property
    def finding(self) -> str:
        """What the check refuses, in words."""
        return QUALITY_CHECKS[self.name]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What great-expectations said about one check; ``observed`` is its own result, JSON-ready."""

    status: str
    observed: dict[str, Any]
    problem: str | None = None


def _true(
    column: str, mostly: Callable[[QualityThresholds], float] | None = None
) -> Callable[[QualityThresholds], Rule]:
    def rule(thresholds: QualityThresholds) -> Rule:
        share = 1.0 if mostly is None else mostly(thresholds)
        return "ExpectColumnValuesToBeInSet", {"column": column, "value_set": [True], "mostly": share}

    return rule


def _false(column: str) -> Callable[[QualityThresholds], Rule]:
    return lambda _: ("ExpectColumnValuesToBeInSet", {"column": column, "value_set": [False]})


def _at_most(column: str, limit: Callable[[QualityThresholds], float]) -> Callable[[QualityThresholds], Rule]:
    return lambda thresholds: ("ExpectColumnValuesToBeBetween", {"column": column, "max_value": limit(thresholds)})


_SOURCE = "Take the bars from another source, or have the source correct them."

CHECKS: tuple[Check, ...] = (
    Check(
        "bar_count",
        "bars",
        None,
        lambda thresholds: ("ExpectTableRowCountToBeBetween", {"min_value": thresholds.min_bars}),
        ReasonCode.BAR_COUNT_TOO_LOW,
        "Pull or ingest a longer range.",
        "min_bars",
        "bars",
    ),
    Check(
        "missing_fields",
        "bars",
        "complete",
        _true("complete"),
        ReasonCode.FIELD_MISSING,
        _SOURCE,
    ),
    Check(
        "finite_prices",
        "bars",
        "finite",
        _true("finite"),
        ReasonCode.VALUE_NOT_FINITE,
        _SOURCE,
    ),
    Check(
        "positive_prices",
        "bars",
        "positive",
        _true("positive"),
        ReasonCode.PRICE_NOT_POSITIVE,
        _SOURCE,
    ),
    Check(
        "zero_prices",
        "bars",
        "no_placeholder",
        _true("no_placeholder"),
        ReasonCode.PLACEHOLDER_PRICE,
        "Take the bars out at the source: nobody traded at them.",
    ),
    Check(
        "ohlc_order",
        "bars",
        "ohlc_ordered",
        _true("ohlc_ordered"),
        ReasonCode.OHLC_ORDER,
        _SOURCE,
    ),
    Check(
        "tick_grid",
        "bars",
        "on_tick_grid",
        _true("on_tick_grid"),
        ReasonCode.OFF_TICK_GRID,
        "Give true exchange prices: adjusted or averaged series are off the grid.",
    ),
    Check(
        "price_scale",
        "bars",
        "plausible_scale",
        _true("plausible_scale"),
        ReasonCode.PRICE_SCALE,
        "Check the unit of the prices: a factor of 100 is the usual cause.",
    ),
    Check(
        "price_jumps",
        "bars",
        "jump_ratio",
        _at_most("jump_ratio", lambda thresholds: thresholds.max_price_jump_ratio),
        ReasonCode.PRICE_SCALE,
        "Look for bad prints or bars of another instrument at the named times.",
        "max_price_jump_ratio",
        "times",
    ),
    Check(
        "range_jumps",
        "bars",
        "jump_range_pct",
        _at_most("jump_range_pct", lambda thresholds: thresholds.max_range_jump_pct),
        ReasonCode.PRICE_SCALE,
        "Look for bad prints or bars of another instrument at the named times.",
        "max_range_jump_pct",
        "% of the plausible range",
    ),
    Check(
        "price_spikes",
        "bars",
        "spike_pct",
        _at_most("spike_pct", lambda thresholds: thresholds.max_spike_pct),
        ReasonCode.PRICE_SPIKE,
        "Look at the named times in another source: a bad print has to go, a real one needs a looser max_spike_pct.",
        "max_spike_pct",
        "% of the price",
    ),
    Check(
        "open_close_order",
        "series",
        "open_close_gap_ratio",
        _at_most("open_close_gap_ratio", lambda thresholds: thresholds.max_open_close_gap_ratio),
        ReasonCode.OPEN_CLOSE_SWAPPED,
        "Check which column is the open and which the close, and that the bars are in time order.",
        "max_open_close_gap_ratio",
        "times",
    ),
    Check(
        "identical_bars",
        "bars",
        "identical_bars",
        _at_most("identical_bars", lambda thresholds: thresholds.max_identical_bars),
        ReasonCode.FROZEN_FEED,
        _SOURCE,
        "max_identical_bars",
        "bars in a row",
    ),
    Check(
        "unchanged_prices",
        "bars",
        "unchanged_bars",
        _at_most("unchanged_bars", lambda thresholds: thresholds.max_unchanged_bars),
        ReasonCode.FROZEN_FEED,
        _SOURCE,
        "max_unchanged_bars",
        "bars in a row",
    ),
    Check(
        "volume_valid",
        "bars",
        "volume_valid",
        _true("volume_valid"),
        ReasonCode.VOLUME_INVALID,
        _SOURCE,
    ),
    Check(
        "zero_volume",
        "bars",
        "traded",
        _true("traded", lambda thresholds: 1.0 - thresholds.max_zero_volume_pct / 100.0),
        ReasonCode.VOLUME_INVALID,
        "Use the contract that trades: bars without volume are quotes or padding.",
        "max_zero_volume_pct",
        "% of the bars",
    ),
    Check(
        "duplicate_keys",
        "bars",
        None,
        lambda _: ("ExpectCompoundColumnsToBeUnique", {"column_list": ["ts_open", "contract"]}),
        ReasonCode.DUPLICATE_KEY,
        "Remove overlapping files; give the contract of each bar where a file holds several.",
    ),
    Check(
        "one_contract",
        "bars",
        "alone",
        _true("alone"),
        ReasonCode.DUPLICATE_KEY,
        "Ingest one contract, or let a continuous symbol be made of the contracts: one for each session.",
    ),
    Check(
        "roll_order",
        "series",
        "backward_rolls",
        _at_most("backward_rolls", lambda _: 0),
        ReasonCode.ROLL_BACKWARD,
        "Use a series that rolls once and forward: a roll by expiry (.c.), or contracts stitched here.",
        unit="rolls back",
    ),
    Check(
        "roll_steps",
        "series",
        "roll_step_pct",
        _at_most("roll_step_pct", lambda thresholds: thresholds.max_roll_step_pct),
        ReasonCode.ROLL_STEP_TOO_LARGE,
        "Look at the named rolls: prices of another instrument or of another unit are the usual cause.",
        "max_roll_step_pct",
        "% of the price",
    ),
    Check(
        "after_expiry",
        "bars",
        "minutes_after_expiry",
        _at_most("minutes_after_expiry", lambda _: 0),
        ReasonCode.CONTRACT_EXPIRED,
        "Drop what comes after the last trade, and roll before it; import the definitions where the day was moved.",
        unit="minutes after the last trade",
    ),
    Check(
        "time_grid",
        "bars",
        "on_time_grid",
        _true("on_time_grid"),
        ReasonCode.OFF_TIME_GRID,
        "Check --stamp, --tz and --schema.",
    ),
    Check(
        "session_dates",
        "bars",
        "on_session_date",
        _true("on_session_date"),
        ReasonCode.NO_SESSION_DATE,
        "Make daily bars of minute bars, session by session: a bar of a UTC day is none of a session.",
    ),
    Check(
        "outside_session",
        "bars",
        "in_session",
        _true("in_session", lambda thresholds: 1.0 - thresholds.max_outside_session_pct / 100.0),
        ReasonCode.OUTSIDE_SESSION,
        "Check --stamp and --tz first: a shifted series shows exactly this.",
        "max_outside_session_pct",
        "% of the bars",
    ),
    Check(
        "not_yet_ended",
        "bars",
        "ended",
        _true("ended"),
        ReasonCode.BAR_NOT_ENDED,
        "Check the zone of the stamps; judge again when the last bar has ended.",
    ),
    Check(
        "copied_sessions",
        "bars",
        "copied",
        _false("copied"),
        ReasonCode.COPIED_SESSION,
        _SOURCE,
    ),
    Check(
        "session_gaps",
        "sessions",
        "longest_gap_minutes",
        _at_most("longest_gap_minutes", lambda thresholds: thresholds.max_gap_minutes),
        ReasonCode.SESSION_GAP,
        "Take the bars from a source that has them; where the exchange was closed, correct the calendar.",
        "max_gap_minutes",
        "minutes",
    ),
    Check(
        "missing_time",
        "series",
        "missing_pct",
        _at_most("missing_pct", lambda thresholds: thresholds.max_missing_pct),
        ReasonCode.TOO_MUCH_MISSING,
        "Use a more liquid contract or a longer bar.",
        "max_missing_pct",
        "% of the open market",
    ),
    Check(
        "staleness",
        "series",
        "stale_minutes",
        _at_most("stale_minutes", lambda thresholds: thresholds.max_staleness_minutes),
        ReasonCode.STALE_DATA,
        "Bring the bars up to the end; or name the range that they cover: an earlier --end, just after the last bar.",
        "max_staleness_minutes",
        "minutes",
    ),
)


def run_suite(
    measures: Measures, thresholds: QualityThresholds, checks: Sequence[Check] = CHECKS
) -> dict[str, Outcome]:
    """Ask great-expectations about every check; one outcome for each of ``checks``, whatever it answers."""
    outcomes: dict[str, Outcome] = {}
    context = _context()
    for frame in dict.fromkeys(check.frame for check in checks):
        mine = [check for check in checks if check.frame == frame]
        results = _validate(context, frame, measures, thresholds, mine)
        for check in mine:
            outcomes[check.name] = _judge(check, results.get(check.name), measures.rows(frame))
    return outcomes


def _validate(
    context: Any, frame: str, measures: Measures, thresholds: QualityThresholds, checks: Sequence[Check]
) -> dict[str, Mapping[str, Any]]:
    """Results by check name, as great-expectations' own JSON."""
    gx, library = _library()
    import pandas as pd

    suite = gx.ExpectationSuite(name=f"{frame}_quality")
    for check in checks:
        name, arguments = check.rule(thresholds)
        suite.add_expectation(getattr(library, name)(**arguments, meta={"check": check.name}))
    definition = (
        context.data_sources.add_pandas(f"{frame}_measures")
        .add_dataframe_asset(frame)
        .add_batch_definition_whole_dataframe("all")
    )
    batch = definition.get_batch({"dataframe": pd.DataFrame(measures.frames[frame])})
    validated = batch.validate(suite, result_format="SUMMARY")
    return {result.expectation_config.meta["check"]: result.to_json_dict() for result in validated.results}


def _context() -> Any:
    gx, _ = _library()
    context = gx.get_context(mode="ephemeral", project_config=_in_memory())
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    return context


def _library() -> tuple[Any, Any]:
    # Analytics would be a network call without a row: off before the import, whatever the environment says.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import great_expectations.expectations as library

    return gx, library


def _in_memory() -> Any:
    """A context's configuration that keeps everything in memory: the default one makes temporary folders for docs."""
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    return DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False))


def _judge(check: Check, result: Mapping[str, Any] | None, rows: int) -> Outcome:
    if result is None:
        return Outcome(UNKNOWN, {}, "the suite gave no result")
    observed = {
        key: value
        for key, value in (result.get("result") or {}).items()
        if key in {"observed_value", "element_count", "unexpected_count", "unexpected_percent", "missing_count"}
    }
    if _raised(result.get("exception_info")):
        return Outcome(UNKNOWN, observed, "its evaluation raised an error")
    if check.frame == "bars" and check.name == "bar_count":
        looked_at = observed.get("observed_value")
    else:
        looked_at = observed.get("element_count")
        if observed.get("missing_count"):
            return Outcome(UNKNOWN, observed, f"{observed['missing_count']} values could not be measured")
        if not rows:
            return Outcome(UNKNOWN, observed, "there was nothing to check")
    if looked_at != rows:
        return Outcome(UNKNOWN, observed, f"it looked at {looked_at} of {rows} rows")
    if result.get("success") is True:
        return Outcome(PASS, observed)
    if result.get("success") is False:
        return Outcome(FAIL, observed)
    return Outcome(UNKNOWN, observed, "the suite gave no verdict")


def _raised(info: Any) -> bool:
    """True when an exception record says raised; it is flat, or nested by metric, and absent means not known."""
    if not isinstance(info, Mapping) or not info:
        return True
    if "raised_exception" in info:
        return info["raised_exception"] is not False
    return any(_raised(inner) for inner in info.values())
