"""Massive's failures as reasons: which status and body means what, and whether trying again can help.

403 is the plan, not the key; 429 is the pace. An answer with status 200 that is no answer (junk, a list, an error in
good clothes) is a failure too. Texts from outside are cleaned of the key before they go anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3

from blaid_pipelines.proof.redact import redact_text
from blaid_pipelines.providers.massive.wire import Answer, AnswerTooLarge, CallTimedOut
from blaid_pipelines.reasons import (
    BlaidError,
    DependencyDown,
    InvalidRequest,
    Reason,
    ReasonCode,
    RetryLater,
    StopAndFix,
)

MAX_RETRY_AFTER_S = 3600.0
DEFAULT_RETRY_AFTER_S = 12.0
"""Where Massive names no time: its free plan allows five requests a minute."""
_TEXT_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: the error to raise, its HTTP status and request id where an answer came."""

    error: BlaidError
    http_status: int | None = None
    provider_request_id: str | None = None


def explain_answer(answer: Answer, *, endpoint: str, secret: str, now: datetime) -> Failure:
    """The failure behind an answer whose status is not 200; ``now`` dates a ``Retry-After`` date."""
    body = _object(answer.body)
    said = _said(body, answer.body, secret)
    request_id = request_id_of(body)
    status = answer.status
    numbers: dict[str, Any] = {"endpoint": endpoint, "http_status": status}
    if status == 429:
        wait = retry_after_s(answer.headers, now)
        return Failure(_rate_limited(endpoint, said, {**numbers, "retry_after_s": wait}, wait), status, request_id)
    if status in (408, 504):
        return Failure(_timeout(endpoint, f"timed out ({status})", numbers), status, request_id)
    if status >= 500 or status == 499:
        reason = Reason(
            ReasonCode.UPSTREAM_5XX,
            f"Massive answered {status} to {endpoint}. {said}".strip(),
            "Try again later; see Massive's status page if it lasts.",
            numbers,
        )
        return Failure(RetryLater(reason), status, request_id)
    if status < 400:
        # 2xx without a body we know, or a redirect: the key does not travel to where it points
        return Failure(bad_response(endpoint, f"has status {status}", http_status=status), status, request_id)
    return Failure(_client_error(status, said, numbers, endpoint), status, request_id)


def explain_exception(error: Exception, *, endpoint: str, secret: str) -> Failure:
    """The failure behind one of the exceptions that the wire raises."""
    text = redact_text(str(error), [secret])[:_TEXT_LIMIT]
    if isinstance(error, CallTimedOut | requests.exceptions.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return Failure(_timeout(endpoint, "did not answer in time", {"endpoint": endpoint}))
    if isinstance(error, AnswerTooLarge):
        return Failure(bad_response(endpoint, "is longer than any that makes sense"))
    if isinstance(error, requests.exceptions.ContentDecodingError | urllib3.exceptions.DecodeError):
        return Failure(bad_response(endpoint, f"cannot be decompressed: {text}"))
    if isinstance(error, requests.exceptions.ConnectionError):
        cause = error.args[0] if error.args else None
        inner = getattr(cause, "reason", cause)
        if isinstance(inner, urllib3.exceptions.ReadTimeoutError):
            return Failure(_timeout(endpoint, "did not answer in time", {"endpoint": endpoint}))
        never_there = isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError) or isinstance(
            inner, urllib3.exceptions.NewConnectionError | urllib3.exceptions.NameResolutionError
        )
        return Failure(_unreachable(endpoint, text) if never_there else _interrupted(endpoint, text))
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return Failure(_unreachable(endpoint, text))
    return Failure(_interrupted(endpoint, text))


def bad_response(endpoint: str, what: str, **numbers: Any) -> DependencyDown:
    """An answer that arrived whole and makes no sense."""
    return DependencyDown(
        Reason(
            ReasonCode.BAD_RESPONSE,
            f"Massive's answer to {endpoint} {what}.",
            "Nothing of it was used. Try again; report it to Massive with the request id if it lasts.",
            {"endpoint": endpoint, **numbers},
        )
    )


def not_entitled(endpoint: str, said: str, numbers: Mapping[str, Any]) -> StopAndFix:
    """The plan does not hold what was asked for, be it the product, the years or the last hours."""
    return StopAndFix(
        Reason(
            ReasonCode.ENTITLEMENT_MISSING,
            f"Massive's plan does not include {endpoint} of this range. {said}".strip(),
            "Ask for a range that the plan holds (no plan but the dearest is current), or change the plan.",
            numbers,
        )
    )


def request_id_of(body: Any) -> str | None:
    """The request id in a body, where there is one."""
    value = body.get("request_id") if isinstance(body, dict) else None
    return value[:200] if isinstance(value, str) and value else None


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float:
    """Seconds to wait, from 0 to an hour: a number or an HTTP date; what is neither counts as not said."""
    given = str(headers.get("retry-after") or "").strip()
    try:
        seconds = float(given)
    except ValueError:
        try:
            moment = parsedate_to_datetime(given)
        except (TypeError, ValueError):
            return DEFAULT_RETRY_AFTER_S
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        seconds = (moment - now).total_seconds()
    if math.isnan(seconds):
        return DEFAULT_RETRY_AFTER_S
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _client_error(status: int, said: str, numbers: dict[str, Any], endpoint: str) -> BlaidError:
    def reason(code: ReasonCode, fix: str) -> Reason:
        return Reason(code, f"Massive refused {endpoint} ({status}). {said}".strip(), fix, numbers)

    if status == 401:
        return StopAndFix(reason(ReasonCode.AUTH_FAILED, "Check MASSIVE_API_KEY (or POLYGON_API_KEY)."))
    if status in (402, 403):
        return not_entitled(endpoint, said, numbers)
    if status == 404:
        return InvalidRequest(
            reason(ReasonCode.NOT_FOUND, "Check the contract (MESH4) and the base URL (BLAID_MASSIVE_URL).")
        )
    return InvalidRequest(reason(ReasonCode.BAD_REQUEST, "Correct the request; the message says what is wrong."))


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _said(body: Mapping[str, Any], raw: bytes, secret: str) -> str:
    for name in ("error", "message"):
        if isinstance(body.get(name), str):
            return redact_text(body[name], [secret])[:_TEXT_LIMIT]
    return "" if body else redact_text(raw[:_TEXT_LIMIT].decode("utf-8", "replace"), [secret]).strip()


def _rate_limited(endpoint: str, said: str, numbers: Mapping[str, Any], wait: float) -> RetryLater:
    reason = Reason(
        ReasonCode.RATE_LIMITED,
        f"Massive limits the rate of {endpoint}. {said}".strip(),
        f"Try again in {wait:g} s, and make fewer requests.",
        numbers,
    )
    return RetryLater(reason, retry_after_s=wait)


def _timeout(endpoint: str, what: str, numbers: Mapping[str, Any]) -> RetryLater:
    return RetryLater(
        Reason(
            ReasonCode.TIMEOUT,
            f"Massive {endpoint} {what}.",
            "Try again later, or ask for a shorter range.",
            numbers,
        )
    )


def _interrupted(endpoint: str, text: str) -> RetryLater:
    return RetryLater(
        Reason(
            ReasonCode.CONNECTION_BROKEN,
            f"The connection broke during {endpoint}. {text}",
            "Try again; look at the network if it lasts.",
            {"endpoint": endpoint},
        )
    )


def _unreachable(endpoint: str, text: str) -> DependencyDown:
    return DependencyDown(
        Reason(
            ReasonCode.PROVIDER_UNREACHABLE,
            f"Massive cannot be reached for {endpoint}. {text}",
            "Check the network and BLAID_MASSIVE_URL; in the sandbox world start `blaid up` or `blaid sandbox`.",
            {"endpoint": endpoint},
        )
    )
