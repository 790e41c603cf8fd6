"""The catalog of integrations: what each is for, which variables it needs, what it can prove.

Whether one is configured is derived when asked, from the environment alone, and never stored: every required variable
is set and has the form its provider gives out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode
from blaid_pipelines.settings import Settings, environment_value


def _filled(value: str) -> bool:
    return len(value) >= 2 and not re.search(r"\s", value) and not value.upper().startswith("YOUR_")


def _matching(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda value: compiled.fullmatch(value) is not None


_FORMS: dict[str, Callable[[str], bool]] = {
    "DATABENTO_API_KEY": _matching(r"db-[A-Za-z0-9]{29}"),
    "MASSIVE_API_KEY": _matching(r"\S{16,}"),
    "IRONBEAM_API_KEY": _matching(r"\S{8,}"),
    "TRADOVATE_CID": _matching(r"\d+"),
}


@dataclass(frozen=True, slots=True)
class Integration:
    """One row of the catalog."""

    integration_key: str
    category: str
    provider_name: str
    required_env_vars: tuple[str, ...]
    optional_env_vars: tuple[str, ...] = ()
    supports_verify: bool = True
    supports_proof_of_use: bool = True


CATALOG: dict[str, Integration] = {
    row.integration_key: row
    for row in (
        Integration("databento", "market_data", "Databento", ("DATABENTO_API_KEY",), ("BLAID_DATABENTO_URL",)),
        # the backup; POLYGON_API_KEY is its older name for the same key
        Integration(
            "massive", "market_data", "Massive", ("MASSIVE_API_KEY",), ("POLYGON_API_KEY", "BLAID_MASSIVE_URL")
        ),
        Integration(
            "ironbeam",
            "broker",
            "Ironbeam",
            ("IRONBEAM_USERNAME", "IRONBEAM_API_KEY"),
            ("IRONBEAM_PASSWORD", "IRONBEAM_ENV"),
        ),
        Integration(
            "tradovate",
            "broker",
            "Tradovate",
            ("TRADOVATE_NAME", "TRADOVATE_PASSWORD", "TRADOVATE_CID", "TRADOVATE_SEC"),
            ("TRADOVATE_APP_ID", "TRADOVATE_APP_VERSION", "TRADOVATE_DEVICE_ID", "TRADOVATE_ENV"),
        ),
    )
}


def get_integration(integration_key: str) -> Integration:
    """The catalog's row. Raises :class:`InvalidRequest` (``NOT_FOUND``) for an unknown key."""
    if integration_key not in CATALOG:
        raise InvalidRequest(
            Reason(
                ReasonCode.NOT_FOUND,
                f"There is no integration {integration_key!r}.",
                f"Use one of: {', '.join(sorted(CATALOG))}.",
                {"integration_key": integration_key},
            )
        )
    return CATALOG[integration_key]


def is_configured(integration_key: str, settings: Settings) -> bool:
    """Whether every required variable is set and has the right form. A local gateway's key has no prescribed form."""
    for name in get_integration(integration_key).required_env_vars:
        if name in {"DATABENTO_API_KEY", "MASSIVE_API_KEY"}:
            databento = name == "DATABENTO_API_KEY"
            secret = settings.databento_key() if databento else settings.massive_key()
            simulated = settings.databento_simulated if databento else settings.massive_simulated
            value = None if secret is None else secret.get_secret_value().strip()
            form = _filled if simulated else _FORMS[name]
        else:
            value = environment_value(name)
            form = _FORMS.get(name, _filled)
        if not value or not _filled(value) or not form(value):
            return False
    return True


def configured_brokers(settings: Settings) -> list[str]:
    """Keys of the brokers that are configured, sorted."""
    return sorted(key for key, row in CATALOG.items() if row.category == "broker" and is_configured(key, settings))
