"""The tunable thresholds of the quality gate, as one frozen model. Policy holds the values; this module holds none.

Each field names, in its ``looser`` metadata, the direction that makes the gate weaker, so that policy can refuse a
value looser than its built-in bound. Checks without a threshold here (missing fields, prices that are no numbers, OHLC
order, tick grid, plausible price range, duplicate keys, copied sessions, bars after expiry or of the future, and more)
tolerate nothing and cannot be loosened. What each check measures and misses is in ``docs/reference/quality.md``.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

SUITE_VERSION = "quality-3"
"""Version of the whole gate: measures, checks, sentinels. A verdict of another version does not count."""


class QualityThresholds(BaseModel):
    """Thresholds of one quality gate. Every field is required; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_bars: int = Field(
        ge=1, description="Fewest bars a snapshot may have.", json_schema_extra={"looser": "lower", "unit": "bars"}
    )
    max_gap_minutes: int = Field(
        ge=0,
        description="Longest run of session minutes without a bar, inside one session.",
        json_schema_extra={"looser": "higher", "unit": "minutes"},
    )
    max_missing_pct: float = Field(
        ge=0,
        le=100,
        description="Largest share of the range's session time without a bar.",
        json_schema_extra={"looser": "higher", "unit": "percent"},
    )
    max_staleness_minutes: int = Field(
        ge=0,
        description="Most session minutes between the last bar and the end of the range.",
        json_schema_extra={"looser": "higher", "unit": "minutes"},
    )
    max_zero_volume_pct: float = Field(
        ge=0,
        le=100,
        description="Largest share of bars with a volume of zero.",
        json_schema_extra={"looser": "higher", "unit": "percent"},
    )
    max_outside_session_pct: float = Field(
        ge=0,
        le=100,
        description="Largest share of bars at times when the exchange calendar says closed.",
        json_schema_extra={"looser": "higher", "unit": "percent"},
    )
    max_price_jump_ratio: float = Field(
        gt=1,
        description="Largest ratio between one bar's close and the next bar's open of the same contract.",
        json_schema_extra={"looser": "higher", "unit": "ratio"},
    )
    max_spike_pct: float = Field(
        gt=0,
        description="Furthest a bar's high or low may stand beyond both neighbours, in per cent of the price, where it "
        "is also more than max_spike_ranges.",
        json_schema_extra={"looser": "higher", "unit": "percent"},
    )
    max_spike_ranges: float = Field(
        gt=0,
        description="The same distance as a multiple of the median true range of the 30 bars before and after.",
        json_schema_extra={"looser": "higher", "unit": "ranges"},
    )
    max_identical_bars: int = Field(
        ge=1,
        description="Longest run of bars of one contract with the same four prices and the same volume.",
        json_schema_extra={"looser": "higher", "unit": "bars"},
    )
    max_unchanged_bars: int = Field(
        ge=1,
        description="Longest run of bars of one contract with the same four prices.",
        json_schema_extra={"looser": "higher", "unit": "bars"},
    )
    max_open_close_gap_ratio: float = Field(
        gt=0,
        description="Largest ratio of the distance from close to next open to the distance from open to next close, "
        "summed over a session or the series, less the standard errors that chance explains.",
        json_schema_extra={"looser": "higher", "unit": "ratio"},
    )
    max_range_jump_pct: float = Field(
        gt=0,
        description="Largest difference between one bar's close and the next bar's open, in per cent of the plausible "
        "range, in an instrument that may trade below zero.",
        json_schema_extra={"looser": "higher", "unit": "percent"},
    )
    max_roll_step_pct: float = Field(
        gt=0,
        description="Largest difference between the last close of a contract and the first open of the next, in per "
        "cent of the price.",
        json_schema_extra={"looser": "higher", "unit": "percent"},
    )
