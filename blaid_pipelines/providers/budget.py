"""What market data may cost. The amounts are policy; the cost of a pull is asked for before it is made."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Usd = Annotated[Decimal, Field(ge=0, allow_inf_nan=False, max_digits=14, decimal_places=6)]


class DataBudget(BaseModel):
    """Limits on billed data, in US dollars. A cost equal to a limit is within it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_cost_usd_per_pull: Usd = Field(
        description="Most that one pull may cost.", json_schema_extra={"looser": "higher"}
    )
    max_cost_usd_per_day: Usd = Field(
        description="Most that all pulls of one UTC day may cost.", json_schema_extra={"looser": "higher"}
    )
