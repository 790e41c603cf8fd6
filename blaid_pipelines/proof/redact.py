"""Taking secrets out of what is stored: request parameters by name, texts by the shapes of known keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(r"api_?key|secret|token|passw|authorization|credential|cookie|signature", re.IGNORECASE)
_SECRET_SHAPES = re.compile(
    r"db-[A-Za-z0-9]{8,}"  # Databento
    r"|sk-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic
    r"|(?:Basic|Bearer)\s+[A-Za-z0-9+/=._~-]{8,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user and password in an address
)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without the given secrets and without anything that has the shape of a key."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, REDACTED)
    return _SECRET_SHAPES.sub(REDACTED, text)


def redact_params(params: Mapping[str, Any], secrets: Iterable[str] = ()) -> dict[str, Any]:
    """``params`` as JSON values, secrets replaced: values under telling names, and key shapes inside texts."""
    known = tuple(secrets)
    return {
        str(name): REDACTED if _SECRET_NAME.search(str(name)) else _clean(value, known)
        for name, value in params.items()
    }


def _clean(value: Any, secrets: tuple[str, ...]) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact_text(value, secrets)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, Mapping):
        return redact_params(value, secrets)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_clean(item, secrets) for item in items]
    raise TypeError(f"a request parameter of type {type(value).__name__} cannot be stored")
