"""Databento's failures as reasons: which status and case means what, and whether trying again can help.

The status alone does not decide: 403 is a missing licence or a locked account, 422 a range that the data does not
have or a malformed instruction. Answers that look good and are not (junk, cut files, lists where objects belong) are
failures too. Texts from outside are cleaned of the key before they go anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3
from databento_dbn import DBNError

from blaid_pipelines.proof.redact import redact_text
from blaid_pipelines.providers.databento.wire import DeadlinePassed
from blaid_pipelines.reasons import (
    BlaidError,
    DependencyDown,
    InvalidRequest,
    Reason,
    ReasonCode,
    RetryLater,
    StopAndFix,
)

RANGE_CASES = (
    "data_end_after_available_end",
    "data_start_before_available_start",
    "data_start_after_available_end",
)
_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?")
_TEXT_LIMIT = 500
_USUAL_WAIT_S, _LONGEST_WAIT_S = 1.0, 3600.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: the error to raise, its HTTP status and request id where an answer came, whether to try again."""

    error: BlaidError
    http_status: int | None = None
    provider_request_id: str | None = None

    @property
    def retryable(self) -> bool:
        return isinstance(self.error, RetryLater)


def explain(error: Exception, *, endpoint: str, secret: str, now: datetime) -> Failure:
    """The failure behind one of the exceptions :func:`raised_by_client`; ``now`` dates a ``Retry-After`` date."""
    from databento.common.error import BentoHttpError

    if isinstance(error, BentoHttpError):
        return _from_answer(error, endpoint, secret, now)
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return Failure(_bad_response(endpoint, "is not JSON"), 200)
    if isinstance(error, DeadlinePassed):
        return Failure(_timeout(endpoint, f"was {error}"))
    if isinstance(error, requests.exceptions.Timeout):
        return Failure(_timeout(endpoint, "did not answer in time"))
    if isinstance(error, requests.exceptions.ConnectionError):
        return _from_connection(error, endpoint, secret)
    text = redact_text(str(error), [secret])[:_TEXT_LIMIT]
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return Failure(_interrupted(endpoint, text), 200)
    if isinstance(error, requests.exceptions.RequestException) and not isinstance(
        error, requests.exceptions.ContentDecodingError
    ):
        return Failure(_unreachable(endpoint, text))
    # the rest is what the client trips over when a body is not what it should be: empty, cut, junk, a list
    return Failure(_bad_response(endpoint, f"cannot be read: {text or type(error).__name__}"))


def raised_by_client() -> tuple[type[Exception], ...]:
    """Everything that the databento client raises because of what a provider or the network did, and nothing else."""
    from databento.common.error import BentoError

    return (
        BentoError,
        DBNError,
        requests.exceptions.RequestException,
        ValueError,
        AttributeError,
        TypeError,
        KeyError,
    )


def bad_response(endpoint: str, what: str, **numbers: Any) -> DependencyDown:
    """An answer that arrived whole and makes no sense."""
    return _bad_response(endpoint, what, numbers)


def _from_answer(error: Any, endpoint: str, secret: str, now: datetime) -> Failure:
    status = int(error.http_status)
    body = error.json_body if isinstance(error.json_body, dict) else {}
    detail = body.get("detail")
    structured = detail if isinstance(detail, dict) else {}
    case = str(structured.get("case") or "")
    said = str(structured.get("message") or (detail if isinstance(detail, str) else "") or error.message or "")
    said = redact_text(said, [secret])[:_TEXT_LIMIT]
    payload = structured.get("payload")
    payload = payload if isinstance(payload, dict) else {}
    numbers: dict[str, Any] = {"endpoint": endpoint, "http_status": status}
    if case:
        numbers["case"] = case
    request_id = error.request_id
    if status == 429:
        wait = _retry_after(error.headers, now)
        return Failure(_rate_limited(endpoint, said, {**numbers, "retry_after_s": wait}, wait), status, request_id)
    if status in (408, 504):
        return Failure(_timeout(endpoint, "timed out", numbers), status, request_id)
    if status >= 500:
        reason = Reason(
            ReasonCode.UPSTREAM_5XX,
            f"Databento answered {status} to {endpoint}. {said}".strip(),
            "Try again later; see Databento's status page if it lasts.",
            numbers,
        )
        return Failure(RetryLater(reason), status, request_id)
    return Failure(_client_error(status, case, said, payload, numbers, endpoint), status, request_id)


def _client_error(
    status: int, case: str, said: str, payload: Mapping[str, Any], numbers: dict[str, Any], endpoint: str
) -> BlaidError:
    def reason(code: ReasonCode, fix: str, **more: Any) -> Reason:
        return Reason(code, f"Databento refused {endpoint} ({status}{f' {case}' if case else ''}). {said}".strip(), fix,
                      {**numbers, **more})  # fmt: skip

    if status == 401 or (status == 403 and case.startswith("auth_")):
        fix = "Check DATABENTO_API_KEY and the account's state in Databento's portal."
        return StopAndFix(reason(ReasonCode.AUTH_FAILED, fix))
    if status == 402:
        return StopAndFix(reason(ReasonCode.ENTITLEMENT_MISSING, "Add funds or a payment method to the account."))
    if status == 403:
        times = _ISO_TIME.findall(said)
        more = {"cutoff": times[-1]} if times else {}
        fix = "Ask for a range that ends before the cutoff, or add the licence to the account."
        return StopAndFix(reason(ReasonCode.ENTITLEMENT_MISSING, fix, **more))
    if case in RANGE_CASES:
        names = ("dataset", "start", "end", "available_start", "available_end")
        known = {name: payload[name] for name in names if isinstance(payload.get(name), str)}
        fix = f"Ask for a range inside {known.get('available_start')} to {known.get('available_end')}."
        if not known:
            fix = "Ask for a range inside the dataset's, as metadata.get_dataset_range gives it."
        return InvalidRequest(reason(ReasonCode.RANGE_UNAVAILABLE, fix, **known))
    if case.startswith("symbology") or (status == 404 and "symbol" in (case + said).lower()):
        fix = "Check the symbol: MES.c.0 (continuous), MES.FUT (parent) or a contract such as MESH4."
        return InvalidRequest(reason(ReasonCode.SYMBOL_NOT_FOUND, fix))
    if status == 404 or case == "dataset_not_found":
        return InvalidRequest(reason(ReasonCode.NOT_FOUND, "Check the dataset and the base URL (BLAID_DATABENTO_URL)."))
    return InvalidRequest(reason(ReasonCode.BAD_REQUEST, "Correct the request; the message says what is wrong."))


def _from_connection(error: requests.exceptions.ConnectionError, endpoint: str, secret: str) -> Failure:
    text = redact_text(str(error), [secret])[:_TEXT_LIMIT]
    cause = error.args[0] if error.args else None
    inner = getattr(cause, "reason", cause)
    if isinstance(inner, urllib3.exceptions.ReadTimeoutError):
        return Failure(_timeout(endpoint, "did not answer in time"))
    if isinstance(inner, urllib3.exceptions.NewConnectionError | urllib3.exceptions.NameResolutionError):
        return Failure(_unreachable(endpoint, text))
    if isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError):
        return Failure(_unreachable(endpoint, text))
    return Failure(_interrupted(endpoint, text))


def _retry_after(headers: Mapping[str, Any], now: datetime) -> float:
    """Seconds to wait: a number or an HTTP date; 1 where Databento says nothing, as its own client does."""
    given = str(headers.get("Retry-After") or headers.get("retry-after") or "").strip()
    try:
        seconds = float(given)
    except ValueError:
        pass
    else:
        # What is no number of seconds (nan, -5) is no word from Databento; what is huge is a long wait.
        return min(seconds, _LONGEST_WAIT_S) if seconds >= 0 else _USUAL_WAIT_S
    try:
        moment = parsedate_to_datetime(given)
    except (TypeError, ValueError, OverflowError):
        return _USUAL_WAIT_S
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return min(max(0.0, (moment - now).total_seconds()), _LONGEST_WAIT_S)


def _rate_limited(endpoint: str, said: str, numbers: Mapping[str, Any], wait: float) -> RetryLater:
    reason = Reason(
        ReasonCode.RATE_LIMITED,
        f"Databento limits the rate of {endpoint}. {said}".strip(),
        f"Try again in {wait:g} s, and make fewer requests.",
        numbers,
    )
    return RetryLater(reason, retry_after_s=wait)


def _timeout(endpoint: str, what: str, numbers: Mapping[str, Any] | None = None) -> RetryLater:
    return RetryLater(
        Reason(
            ReasonCode.TIMEOUT,
            f"Databento {endpoint} {what}.",
            "Try again later, or ask for a shorter range.",
            numbers or {"endpoint": endpoint},
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
            f"Databento cannot be reached for {endpoint}. {text}",
            "Check the network and the base URL; in the sandbox world start `blaid up` or `blaid sandbox`.",
            {"endpoint": endpoint},
        )
    )


def _bad_response(endpoint: str, what: str, numbers: Mapping[str, Any] | None = None) -> DependencyDown:
    return DependencyDown(
        Reason(
            ReasonCode.BAD_RESPONSE,
            f"Databento's answer to {endpoint} {what}.",
            "Nothing of it was used. Try again; report it to Databento with the request id if it lasts.",
            {"endpoint": endpoint, **(numbers or {})},
        )
    )
