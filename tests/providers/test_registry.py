"""The catalog of integrations: configured means every variable set, and of the form its provider gives out."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from blaid_pipelines.providers.budget import DataBudget
from blaid_pipelines.providers.registry import CATALOG, configured_brokers, get_integration, is_configured
from blaid_pipelines.reasons import InvalidRequest, ReasonCode
from blaid_pipelines.settings import Settings, load_settings

IRONBEAM = {"IRONBEAM_USERNAME": "51234567", "IRONBEAM_API_KEY": "0123456789abcdef"}
TRADOVATE = {
    "TRADOVATE_NAME": "someone",
    "TRADOVATE_PASSWORD": "long-enough",
    "TRADOVATE_CID": "123",
    "TRADOVATE_SEC": "ab-cd-ef",
}


@pytest.fixture
def plain(tmp_path: Path, clean_environment: pytest.MonkeyPatch) -> Settings:
    for row in CATALOG.values():
        for name in (*row.required_env_vars, *row.optional_env_vars):
            clean_environment.delenv(name, raising=False)
    return load_settings(BLAID_HOME=tmp_path)


def test_nothing_is_configured_without_variables(plain: Settings) -> None:
    assert [key for key in CATALOG if is_configured(key, plain)] == []
    assert configured_brokers(plain) == []


@pytest.mark.parametrize(("broker", "variables"), [("ironbeam", IRONBEAM), ("tradovate", TRADOVATE)])
def test_a_broker_needs_every_variable(
    broker: str, variables: dict[str, str], plain: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        assert configured_brokers(plain) == []
        monkeypatch.setenv(name, value)
    assert configured_brokers(plain) == [broker]
    for name, value in variables.items():
        for bad in ("", "  ", "YOUR_KEY", "two words"):
            monkeypatch.setenv(name, bad)
            assert configured_brokers(plain) == [], (name, bad)
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("key", "configured"),
    [("db-" + "a1B2" * 7 + "c", True), ("db-short", False), ("x" * 32, False), ("YOUR_API_KEY", False)],
)
def test_the_real_service_needs_a_key_of_its_form(key: str, configured: bool, plain: Settings) -> None:
    real = load_settings(BLAID_HOME=plain.home, BLAID_ENV="production", DATABENTO_API_KEY=key)
    assert is_configured("databento", real) is configured


def test_the_key_of_the_local_gateway_counts_in_the_sandbox_world_alone(plain: Settings) -> None:
    plain.sandbox_key_path.write_text("db-anything-made-here\n")
    assert is_configured("databento", plain)
    assert not is_configured("databento", load_settings(BLAID_HOME=plain.home, BLAID_ENV="production"))


def test_an_unknown_integration(plain: Settings) -> None:
    with pytest.raises(InvalidRequest) as caught:
        get_integration("nobody")
    assert caught.value.reason.code is ReasonCode.NOT_FOUND


@pytest.mark.parametrize("bad", ["-1", "NaN", "Infinity", "x", None])
def test_a_budget_is_an_amount(bad: str | None) -> None:
    DataBudget(max_cost_usd_per_pull=Decimal(0), max_cost_usd_per_day=Decimal("12.5"))
    with pytest.raises(ValidationError):
        DataBudget.model_validate({"max_cost_usd_per_pull": bad, "max_cost_usd_per_day": "1"})
    with pytest.raises(ValidationError):
        DataBudget.model_validate({"max_cost_usd_per_pull": "1"})
