"""The registry of strategy families and the checks of a caller's choice: name, parameters, their hash.

What a family must do is in ``backtest.families.base``; the families themselves are one module each beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blaid_pipelines.backtest.families.base import Parameter, ParameterValue, Params, Signals, StrategyFamily
from blaid_pipelines.backtest.families.channel_breakout import ChannelBreakout
from blaid_pipelines.backtest.families.ma_cross import MovingAverageCross
from blaid_pipelines.backtest.families.opening_range import OpeningRange
from blaid_pipelines.backtest.families.time_of_day import TimeOfDay
from blaid_pipelines.backtest.families.volatility_filter import VolatilityFilter
from blaid_pipelines.backtest.families.vwap_reversion import VwapReversion
from blaid_pipelines.backtest.families.zscore_reversion import ZScoreReversion
from blaid_pipelines.ids import fingerprint
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode

__all__ = [
    "FAMILIES",
    "Parameter",
    "ParameterValue",
    "Params",
    "Signals",
    "StrategyFamily",
    "check_params",
    "get_family",
    "params_hash",
]

# in the order of their names, as they are listed
_BUILT_IN = (
    ChannelBreakout(),
    MovingAverageCross(),
    OpeningRange(),
    TimeOfDay(),
    VolatilityFilter(),
    VwapReversion(),
    ZScoreReversion(),
)
FAMILIES: Mapping[str, StrategyFamily] = {
    family.name: family for family in sorted(_BUILT_IN, key=lambda each: each.name)
}


def get_family(name: str) -> StrategyFamily:
    """The family called ``name``; raises :class:`InvalidRequest` (STRATEGY_UNKNOWN) naming those there are."""
    family = FAMILIES.get(name)
    if family is None:
        raise InvalidRequest(
            Reason(
                ReasonCode.STRATEGY_UNKNOWN,
                f"There is no strategy family {name!r}.",
                f"Use one of: {', '.join(FAMILIES)}.",
                {"strategy": name, "known": list(FAMILIES)},
            )
        )
    return family


def check_params(family: StrategyFamily, given: Mapping[str, Any]) -> dict[str, ParameterValue]:
    """Every parameter of ``family``, from ``given`` (text or numbers) or its default, checked.

    Raises :class:`InvalidRequest` with one PARAMETER_INVALID reason per violation, all at once.
    """
    reasons = [_unknown(family, name) for name in given if name not in family.parameters]
    params: dict[str, ParameterValue] = {}
    for name, parameter in family.parameters.items():
        value = given.get(name, parameter.default)
        number = _number(parameter, value)
        if number is None:
            reasons.append(_invalid(family, name, parameter, value))
        else:
            params[name] = number
    if not reasons:
        reasons = family.check(params)
    if reasons:
        raise InvalidRequest(*reasons)
    return params


def params_hash(family: str, params: Params) -> str:
    """Identity of a parameter set within its family: sha256 of canonical JSON."""
    return fingerprint({"family": family, "params": dict(params)})


def _number(parameter: Parameter, value: Any) -> ParameterValue | None:
    """``value`` as the parameter's kind; None when it is not a number, out of bounds or between two steps."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number) or not parameter.low <= number <= parameter.high:
        return None
    steps = round(number / parameter.step)
    if abs(number / parameter.step - steps) > 1e-9:
        return None
    return int(number) if parameter.kind == "int" else round(steps * parameter.step, 9)


def _unknown(family: StrategyFamily, name: str) -> Reason:
    return Reason(
        ReasonCode.PARAMETER_INVALID,
        f"{family.name} has no parameter {name!r}.",
        f"Its parameters are: {', '.join(family.parameters)}.",
        {"parameter": name, "known": list(family.parameters)},
    )


def _invalid(family: StrategyFamily, name: str, parameter: Parameter, value: Any) -> Reason:
    kind = "a whole number" if parameter.kind == "int" else f"a multiple of {parameter.step}"
    return Reason(
        ReasonCode.PARAMETER_INVALID,
        f"{family.name}: {name}={value} is not {kind} from {parameter.low} to {parameter.high}.",
        f"Give {kind} from {parameter.low} to {parameter.high}.",
        {"parameter": name, "value": str(value), "low": parameter.low, "high": parameter.high, "step": parameter.step},
    )
