"""The thresholds of reconciliation, as one frozen model. Policy holds the values; this module holds none.

Each field names, in its ``looser`` metadata, the direction that lets more through. Two copies of the same bars
(``overlap``) have no threshold: they are equal or they are not. Factors that leave no room let nothing pass.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def _limit(looser: str, unit: str, doc: str, **rules: Any) -> Any:
    return Field(description=doc, json_schema_extra={"looser": looser, "unit": unit}, **rules)


class RequiredReconciliations(BaseModel):
    """Kinds of comparison without which a snapshot is not used."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    daily: bool = _limit("false", "switch", "Against daily bars.")
    overlap: bool = _limit("false", "switch", "Against other copies of the same bars in the lake.")
    backup: bool = _limit("false", "switch", "Against the backup provider.")


class ReconciliationThresholds(BaseModel):
    """What two accounts of the same bars may differ by. Every field is required; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    required: RequiredReconciliations
    min_required_share_pct: float = _limit(
        "lower", "percent", "Part of the bars or sessions that a required comparison covers.", gt=0, le=100
    )
    min_sessions: int = _limit("lower", "sessions", "Fewest sessions that a comparison with daily bars rests on.", ge=1)
    min_daily_volume_factor: float = _limit("lower", "ratio", "Smallest daily volume over the minutes' volume.", gt=0)
    max_daily_volume_factor: float = _limit("higher", "ratio", "Largest daily volume over the minutes' volume.", gt=0)
    max_daily_range_ticks: int = _limit("higher", "ticks", "Most ticks between a daily high or low and theirs.", ge=0)
    max_differing_sessions_pct: float = _limit("higher", "percent", "Sessions that may differ.", ge=0, le=100)
    min_common_bars: int = _limit("lower", "bars", "Fewest bars that both providers have.", ge=1)
    max_backup_missing_pct: float = _limit(
        "higher", "percent", "Traded bars that only one of two providers has.", ge=0, le=100
    )
    max_backup_price_ticks: int = _limit("higher", "ticks", "Price difference that still counts as none.", ge=0)
    max_backup_differing_pct: float = _limit("higher", "percent", "Common bars whose prices may differ.", ge=0, le=100)
    min_backup_volume_factor: float = _limit("lower", "ratio", "Smallest volume of theirs over ours.", gt=0)
    max_backup_volume_factor: float = _limit("higher", "ratio", "Largest volume of theirs over ours.", gt=0)
