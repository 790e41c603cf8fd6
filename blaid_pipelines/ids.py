"""Identifiers and hashes: UUIDv7 ids, W3C trace ids, canonical JSON and its sha256. No state lives here."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any
from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): sorts by creation time."""
    return UUID(int=uuid_utils.uuid7().int)


def new_trace_id() -> str:
    """A W3C trace id: 32 lower-case hex digits, never all zero."""
    while True:
        trace_id = secrets.token_hex(16)
        if int(trace_id, 16):
            return trace_id


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, no NaN: the one text form that is hashed.

    Raises ``ValueError`` for NaN and infinities, ``TypeError`` for values JSON does not know.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_hex(data: bytes) -> str:
    """Lower-case hex sha256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(value: Any) -> str:
    """sha256 of the canonical JSON of ``value``."""
    return sha256_hex(canonical_json(value).encode())
