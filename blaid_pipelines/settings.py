"""Settings from the environment, frozen. Thresholds are policy, not settings; secrets are never printed or stored.

In the sandbox world alone, ``blaid init`` makes the gateway key itself and keeps it in ``sandbox.key`` (mode 0600) in
the data folder; everywhere else a missing key stays missing.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix

DATABENTO_OFFICIAL_URL = "https://hist.databento.com"
MASSIVE_OFFICIAL_URL = "https://api.massive.com"


class Environment(StrEnum):
    """The world a process belongs to; stamped into its database at creation."""

    SANDBOX = "sandbox"
    DEV = "dev"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """What the environment says. Build it with :func:`load_settings`, which explains what is wrong."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=True)

    env: Environment = Field(default=Environment.SANDBOX, alias="BLAID_ENV")
    home: Path = Field(default_factory=lambda: Path.cwd() / ".blaid", alias="BLAID_HOME")
    database_url: SecretStr | None = Field(default=None, alias="BLAID_DATABASE_URL")
    lake_path: Path | None = Field(default=None, alias="BLAID_LAKE")
    policy_path: Path | None = Field(default=None, alias="BLAID_POLICY")
    databento_api_key: SecretStr | None = Field(default=None, alias="DATABENTO_API_KEY")
    databento_url_setting: str | None = Field(default=None, alias="BLAID_DATABENTO_URL")
    massive_api_key: SecretStr | None = Field(default=None, alias="MASSIVE_API_KEY")
    polygon_api_key: SecretStr | None = Field(default=None, alias="POLYGON_API_KEY")  # what Massive was called before
    massive_url_setting: str | None = Field(default=None, alias="BLAID_MASSIVE_URL")
    sandbox_port: int = Field(default=8790, ge=1, le=65535, alias="BLAID_SANDBOX_PORT")
    webserver_port: int = Field(default=3000, ge=1, le=65535, alias="BLAID_WEBSERVER_PORT")
    docs_port: int = Field(default=3001, ge=1, le=65535, alias="BLAID_DOCS_PORT")
    allow_sim_fallback: bool = Field(default=False, alias="ALLOW_SIM_FALLBACK")

    @field_validator("home", "lake_path", "policy_path")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("databento_url_setting", "massive_url_setting")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http or https address, such as http://127.0.0.1:8790")
        return value.rstrip("/")

    @property
    def lake(self) -> Path:
        """Folder of the Parquet lake."""
        return self.lake_path or self.home / "lake"

    @property
    def warehouse_dir(self) -> Path:
        """Folder of ``warehouse.duckdb`` and its versions."""
        return self.home / "warehouse"

    @property
    def dagster_home(self) -> Path:
        """``DAGSTER_HOME`` of this installation."""
        return self.home / "dagster"

    @property
    def log_dir(self) -> Path:
        """Folder of process logs."""
        return self.home / "logs"

    @property
    def databento_url(self) -> str:
        """Base URL of the Databento historical gateway; in the sandbox world the local one unless set."""
        return self._provider_url(self.databento_url_setting, DATABENTO_OFFICIAL_URL)

    @property
    def databento_simulated(self) -> bool:
        """True unless the base URL is Databento's own: what comes from elsewhere is stamped simulated."""
        return self.databento_url != DATABENTO_OFFICIAL_URL

    @property
    def massive_url(self) -> str:
        """Base URL of Massive's REST service; in the sandbox world the local gateway unless set."""
        return self._provider_url(self.massive_url_setting, MASSIVE_OFFICIAL_URL)

    @property
    def massive_simulated(self) -> bool:
        """True unless the base URL is Massive's own, https and all."""
        return self.massive_url != MASSIVE_OFFICIAL_URL

    def _provider_url(self, given: str | None, official: str) -> str:
        if given is not None:
            return given
        return f"http://127.0.0.1:{self.sandbox_port}" if self.env is Environment.SANDBOX else official

    @property
    def sandbox_key_path(self) -> Path:
        """Where ``blaid init`` keeps the sandbox gateway's key (sandbox world only)."""
        return self.home / "sandbox.key"

    def databento_key(self) -> SecretStr | None:
        """The Databento key: the environment's, or in the sandbox world against a local gateway the generated one."""
        return self._provider_key(self.databento_simulated, self.databento_api_key)

    def massive_key(self) -> SecretStr | None:
        """The Massive key: ``MASSIVE_API_KEY``, else ``POLYGON_API_KEY``, else as :meth:`databento_key`."""
        return self._provider_key(self.massive_simulated, self.massive_api_key, self.polygon_api_key)

    def _provider_key(self, simulated: bool, *given: SecretStr | None) -> SecretStr | None:
        for key in given:
            if key is not None and key.get_secret_value().strip():
                return key
        if self.env is Environment.SANDBOX and simulated and self.sandbox_key_path.is_file():
            return SecretStr(self.sandbox_key_path.read_text().strip())
        return None


def load_settings(**overrides: Any) -> Settings:
    """Settings from ``os.environ`` with ``overrides`` by variable name (``BLAID_HOME=...``) on top.

    Raises :class:`StopAndFix` with one ``SETTINGS_INVALID`` reason per bad variable, all at once.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        reasons = [
            Reason(
                ReasonCode.SETTINGS_INVALID,
                f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}",
                "Correct or unset this environment variable.",
                {"variable": ".".join(str(part) for part in problem["loc"])},
            )
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise StopAndFix(*reasons) from None


def environment_value(name: str) -> str | None:
    """One environment variable, stripped; None when unset or blank. For integration keys named by the registry."""
    value = os.environ.get(name, "").strip()
    return value or None
