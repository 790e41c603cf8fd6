"""Loading a policy: every violation at once, nothing looser than its bound without a stated reason."""

from __future__ import annotations

import copy
import tomllib
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.policy.load import bounds, check_policy, default_policy_text, field_rules, load_policy
from blaid_pipelines.policy.model import Stage, effective_fallback
from blaid_pipelines.reasons import ReasonCode, StopAndFix
from blaid_pipelines.settings import Environment

DEFAULT = tomllib.loads(default_policy_text())
LIMITS = sorted(path for path, rule in field_rules().items() if rule.looser != "none")
REASON = "agreed with the desk on a test day"


def value_at(document: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        document = document[part]
    return document


def changed(path: str, value: Any, loosened: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """The default document with one field replaced (``...`` removes it)."""
    document = copy.deepcopy(DEFAULT)
    *parents, name = path.split(".")
    table = value_at(document, ".".join(parents)) if parents else document
    if value is ...:
        del table[name]
    else:
        table[name] = value
    if loosened is not None:
        document["loosened"] = loosened
    return document


def refusals(document: dict[str, Any]) -> list[str]:
    with pytest.raises(StopAndFix) as caught:
        check_policy(document)
    assert all(reason.code is ReasonCode.POLICY_INVALID and reason.suggested_fix for reason in caught.value.reasons)
    return [reason.message for reason in caught.value.reasons]


def looser_value(path: str) -> Any:
    """A value just past the bound on the loose side; None where the field has no looser value."""
    rule, bound = field_rules()[path], bounds()[path]
    if isinstance(rule.looser, tuple):
        later = rule.looser[rule.looser.index(bound) + 1 :]
        return later[0] if later else None
    if rule.looser in {"true", "false"}:
        return None if bound is (rule.looser == "true") else not bound
    step = {"higher": 1, "change": 1, "lower": -1}[rule.looser]
    if isinstance(bound, str):
        return str(Decimal(bound) + step)
    if isinstance(bound, float):
        return bound + step * 1e-3
    return bound + step


def stricter_value(path: str) -> Any:
    rule, bound = field_rules()[path], bounds()[path]
    if rule.looser == "higher":
        return str(Decimal(bound) - 1) if isinstance(bound, str) else type(bound)(bound * 0.9)
    if rule.looser == "lower":
        return type(bound)(bound * 1.01 + (1 if isinstance(bound, int) else 0))
    return None


def test_the_default_policy_loads_and_loosens_nothing() -> None:
    policy = load_policy()
    assert policy.loosened == ()
    assert len(policy.hash) == 64
    assert load_policy().hash == policy.hash
    assert [stage for stage, _ in policy.stages.ladder()] == list(Stage)


def test_every_limit_has_a_built_in_bound_and_the_default_sits_within_it() -> None:
    assert sorted(bounds()) == LIMITS
    assert check_policy(DEFAULT) == load_policy()


def test_the_gates_of_the_mission_are_the_bounds() -> None:
    gates = load_policy().gates_v1
    assert gates.model_dump() == {
        "min_sessions": 60,
        "min_trades": 100,
        "min_losers": 5,
        "min_win_rate_pct": 35.0,
        "min_profit_factor": 1.15,
        "max_drawdown_pct": 20.0,
        "min_psr0": 0.95,
    }


@pytest.mark.parametrize("path", sorted(field_rules()))
def test_an_absent_field_is_named(path: str) -> None:
    messages = refusals(changed(path, ...))
    assert messages == [f"{path} is absent; every field is required"]


@pytest.mark.parametrize("path", [path for path in LIMITS if looser_value(path) is not None])
def test_a_looser_value_needs_a_reason(path: str) -> None:
    value = looser_value(path)
    messages = refusals(changed(path, value))
    waived = [message for message in messages if "looser than the built-in bound" in message]
    impossible = [message for message in messages if "looser than the built-in bound" not in message]
    assert waived or impossible
    assert any(path in message or path.rsplit(".", 1)[0] in message for message in messages)
    if impossible:
        return  # no reason loosens a rule of the model itself; the next test names those
    policy = check_policy(changed(path, value, [{"field": path, "reason": REASON}]))
    assert [(entry.field, entry.reason) for entry in policy.loosened] == [(path, REASON)]
    assert policy.hash != load_policy().hash
    other = check_policy(changed(path, value, [{"field": path, "reason": REASON + ", again"}]))
    assert other.hash != policy.hash


@pytest.mark.parametrize("stage", ["PAPER", "SHADOW", "CANARY", "LIVE"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("required.broker", False), ("required.market_data", False)]
    + [(f"allowed_fallbacks.{source}", "sim") for source in ("market_data", "broker", "macro", "news")],
)
def test_above_the_lab_no_reason_waives_the_broker_or_simulates(stage: str, field: str, value: Any) -> None:
    path = f"stages.{stage}.{field}"
    messages = refusals(changed(path, value, [{"field": path, "reason": REASON}]))
    assert any("above LAB" in message for message in messages)


@pytest.mark.parametrize("path", [path for path in LIMITS if stricter_value(path) not in (None, 0, "0")])
def test_a_stricter_value_needs_none(path: str) -> None:
    document = changed(path, stricter_value(path))
    between_fields = path.endswith("late_after_s") or path.startswith("autonomy.tiers")
    if between_fields:  # a rule of the model (late after due, tiers ascend) may refuse the number, the bound never
        with suppress(StopAndFix):
            assert check_policy(document).hash != load_policy().hash
    else:
        assert check_policy(document).hash != load_policy().hash


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (float("-inf"), "finite"),
        (True, "number"),
        ("20", "number"),
        ([20.0], "number"),
        (-1.0, "greater than 0"),
        (101.0, "less than or equal to 100"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(value: Any, words: str) -> None:
    messages = refusals(changed("gates_v1.max_drawdown_pct", value))
    assert any(message.startswith("gates_v1.max_drawdown_pct") and words in message for message in messages)


@pytest.mark.parametrize("path", ["quality.min_bars", "budgets.data.max_cost_usd_per_pull", "gates_v1.min_trades"])
@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), [], "", "many"], ids=repr)
def test_models_of_other_layers_are_as_strict(path: str, value: Any) -> None:
    assert any(message.startswith(path) for message in refusals(changed(path, value)))


def test_a_number_written_as_text_is_refused_where_a_number_belongs() -> None:
    assert refusals(changed("quality.min_bars", "1000")) == ["quality.min_bars must be a number, not text"]


def test_every_violation_is_reported_at_once() -> None:
    document = changed("gates_v1.max_drawdown_pct", 25.0, [{"field": "gates_v1.min_losers", "reason": REASON}])
    del document["gates_v1"]["min_trades"]
    document["stages"]["LIVE"]["ai_allowed"] = True
    document["stages"]["PAPER"]["fusion"]["min_confidence"] = float("nan")
    document["budgets"]["data"]["max_cost_usd_per_day"] = "21"
    document["autonomy"]["weights"]["data_reliability"] = 25.0
    document["surprise"] = 1
    messages = "\n".join(refusals(document))
    for words in (
        "gates_v1.max_drawdown_pct 25.0 is looser than the built-in bound 20.0",
        "gates_v1.min_trades is absent",
        "stages.LIVE.ai_allowed True is looser",
        "stages.PAPER.fusion.min_confidence",
        "budgets.data.max_cost_usd_per_day 21 is looser",
        "autonomy.weights the weights must add up to 100",
        "surprise is not a field",
        "loosened gates_v1.min_losers loosens nothing",
    ):
        assert words in messages


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"field": "gates_v1.max_drawdown_pct", "reason": "short"}], "at least ten characters"),
        ([{"field": "gates_v1.max_drawdown_pct", "reason": " " * 20}], "at least ten characters"),
        ([{"field": "gates_v1.max_drawdown_pct"}], "absent"),
        ([{"field": "gates_v1.max_drawdown", "reason": REASON}], "names no field"),
        ([{"field": "version", "reason": REASON}], "names no field"),
        ([{"field": "gates_v1.max_drawdown_pct", "reason": REASON}] * 2, "more than once"),
    ],
)
def test_an_entry_that_explains_nothing_is_refused(entries: list[dict[str, str]], words: str) -> None:
    assert any(words in message for message in refusals(changed("gates_v1.max_drawdown_pct", 25.0, entries)))


def test_loosened_that_is_no_list_of_tables_is_refused() -> None:
    for wrong in ("all", {"field": "x"}, [1]):
        assert refusals(changed("gates_v1.max_drawdown_pct", 25.0, wrong))  # type: ignore[arg-type]


@given(
    loosen=st.sets(st.sampled_from([path for path in LIMITS if path.startswith(("gates_v1", "quality", "budgets"))]))
)
@settings(max_examples=30, deadline=None)
def test_any_set_of_loose_fields_needs_a_reason_each(loosen: set[str]) -> None:
    document = copy.deepcopy(DEFAULT)
    stated = []
    for path in sorted(loosen):
        document = {**document}
        *parents, name = path.split(".")
        value_at(document, ".".join(parents))[name] = looser_value(path)
        stated.append({"field": path, "reason": REASON})
    document["loosened"] = stated
    assert {entry.field for entry in check_policy(document).loosened} == loosen
    for entry in stated:
        silent = {**document, "loosened": [other for other in stated if other is not entry]}
        assert [message.split()[0] for message in refusals(silent)] == [entry["field"]]


def test_a_file_is_read_and_its_faults_are_named(tmp_path: Path) -> None:
    good = tmp_path / "policy.toml"
    good.write_text("# a comment does not change the hash\n" + default_policy_text())
    assert load_policy(good).hash == load_policy().hash
    broken = tmp_path / "broken.toml"
    broken.write_text("version = ")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"version = '\xff'")
    for path in (broken, latin, tmp_path / "absent.toml", tmp_path):
        with pytest.raises(StopAndFix) as caught:
            load_policy(path)
        assert caught.value.reason.code is ReasonCode.POLICY_INVALID
        assert str(path) in caught.value.reason.message


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("environment", list(Environment))
@pytest.mark.parametrize("allowed", [True, False])
def test_a_simulated_stand_in_counts_in_the_lab_in_dev_when_allowed(
    stage: Stage, environment: Environment, allowed: bool
) -> None:
    expected = "sim" if (stage, environment, allowed) == (Stage.LAB, Environment.DEV, True) else "none"
    assert effective_fallback(load_policy(), stage, "market_data", environment, allowed) == expected


@pytest.mark.parametrize(("capital", "limit"), [(2_500_000, 75_000), (1_000_000, 30_000), (33, 0), (1_000_033, 30_000)])
def test_the_daily_loss_limit_is_a_share_of_the_capital_in_whole_cents(capital: int, limit: int) -> None:
    assert load_policy().stages.LAB.daily_loss_limit_cents(capital) == limit
