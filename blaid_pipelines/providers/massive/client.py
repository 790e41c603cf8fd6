"""Massive's REST service, one recorded attempt per HTTP request: futures bars, session bars, contracts, market status.

Massive knows contracts only: whoever wants a continuous series says which contract it wants when. Its answers come in
pages; each page is a call of its own with its own row, and a ``next_url`` is followed on the configured service alone.
Rate limits, 5xx, time-outs and broken connections are tried again a bounded number of times. Nothing is billed by the
call, so there is no cost to ask for.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

import numpy as np

from blaid_pipelines.proof.recorder import Attempt, CallContext, CallIntent, Recorder
from blaid_pipelines.providers.massive import errors, replies
from blaid_pipelines.providers.massive.replies import Contract, MarketStatus, MassiveBars, SessionBar
from blaid_pipelines.providers.massive.wire import Wire, raised_by_wire
from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode, Refused, RetryLater, StopAndFix
from blaid_pipelines.settings import MASSIVE_OFFICIAL_URL, Environment, Settings

T = TypeVar("T")

PROVIDER = "massive"
AGGS_ENDPOINT = "futures/v1/aggs"
CONTRACTS_ENDPOINT = "futures/v1/contracts"
STATUS_ENDPOINT = "v1/marketstatus/now"

MINUTE_NS = 60_000_000_000
RESOLUTIONS = {"ohlcv-1m": ("1min", MINUTE_NS), "ohlcv-1h": ("1hour", 60 * MINUTE_NS)}
"""Bar schemas that Massive has, with the length of a bar. Its daily bars are sessions, not the UTC days of ohlcv-1d."""

DEFAULT_TIMEOUT_S = 30.0
DEFAULT_TOTAL_S = 120.0
MAX_ATTEMPTS = 3
MAX_WAIT_S = 60.0
"""Longest pause between attempts; when Massive asks for more, the call fails with ``retry_after_s`` instead."""
PAGE_LIMIT = 50_000
MAX_PAGES = 1000
_TICKER = re.compile(r"[A-Z0-9]{1,3}[FGHJKMNQUVXZ]\d{1,2}")
_OLD_HOST = "api.polygon.io"


class MassiveRest:
    """The REST service on behalf of one piece of work (``context``).

    ``request_ids`` lists the row of every attempt made through this object in order, ``succeeded`` those whose answer
    was used. Raises :class:`StopAndFix` (``INTEGRATION_KEY_MISSING``) without a usable key and :class:`Refused`
    (``SIMULATED_SOURCE_REFUSED``) outside the sandbox world when the base URL is not Massive's own.
    """

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        context: CallContext,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        total_s: float = DEFAULT_TOTAL_S,
        max_attempts: int = MAX_ATTEMPTS,
        page_limit: int = PAGE_LIMIT,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._secret = _usable_key(settings)
        self.request_ids: list[UUID] = []
        self.succeeded: list[UUID] = []
        self._base = settings.massive_url
        self._simulated = settings.massive_simulated
        self._recorder = recorder
        self._context = context
        self._wire = Wire(self._secret, timeout_s, total_s)
        self._max_attempts = max_attempts
        self._page_limit = page_limit
        self._sleep = sleep
        self._clock = clock

    def market_status(self) -> MarketStatus:
        """Whether markets are open: the cheapest call that proves a key."""

        def read(got: _Got) -> MarketStatus:
            return replies.read_market_status(STATUS_ENDPOINT, got.body)

        return self._call(_Asked(STATUS_ENDPOINT, STATUS_ENDPOINT, {}), read)

    def list_contracts(self, product: str, on: date | None = None) -> list[Contract]:
        """The contracts of a product root, as of a date where one is given."""
        params = {"product_code": product, "limit": "1000"} | ({} if on is None else {"date": on.isoformat()})
        found: list[Contract] = []

        def take(rows: list[Mapping[str, Any]], _: bool, __: _Got) -> None:
            found.extend(replies.read_contracts(CONTRACTS_ENDPOINT, rows, product))

        self._pages(_Asked(CONTRACTS_ENDPOINT, CONTRACTS_ENDPOINT, params, symbol=product), take)
        return found

    def get_bars(self, ticker: str, schema: str, start: datetime, end: datetime) -> tuple[MassiveBars, list[UUID]]:
        """Bars of one contract with ``start <= ts_open < end``, and the requests (one a page) that they rest on.

        A range without trades gives no bars and no error. Raises :class:`InvalidRequest` for what is no contract, no
        range or no bar schema of Massive's, ``BAD_RESPONSE`` for an answer that is not the bars asked for, and the
        failures of the service.
        """
        if schema not in RESOLUTIONS:
            raise _invalid(f"Massive has no {schema} bars", f"Use one of: {', '.join(RESOLUTIONS)}.", schema=schema)
        resolution, step_ns = RESOLUTIONS[schema]
        asked = self._range(ticker, resolution, schema, start, end)
        low, high = to_ns(start), to_ns(end)
        before = len(self.succeeded)
        parts: list[Any] = [np.empty((0, 6), np.int64)]
        delayed, simulated = False, self._simulated

        def take(rows: list[Mapping[str, Any]], late: bool, got: _Got) -> None:
            nonlocal delayed, simulated
            after = max((int(part[-1, 0]) for part in parts if len(part)), default=-1)
            parts.append(replies.read_bars(AGGS_ENDPOINT, rows, ticker, low, high, step_ns, after))
            got.attempt.outcome(bar_count=len(rows))
            delayed, simulated = delayed or late, simulated or got.simulated

        self._pages(asked, take)
        stamps, o, h, lo, c, volume = (np.ascontiguousarray(column) for column in np.concatenate(parts).T)
        bars = MassiveBars(ticker, stamps, o, h, lo, c, volume, delayed, simulated)
        return bars, self.succeeded[before:]

    def get_session_bars(self, ticker: str, start: datetime, end: datetime) -> tuple[list[SessionBar], list[UUID]]:
        """Session bars of one contract whose session opens in ``[start, end)``, and the requests they rest on."""
        asked = self._range(ticker, "1session", "session", start, end)
        before = len(self.succeeded)
        found: list[SessionBar] = []

        def take(rows: list[Mapping[str, Any]], _: bool, got: _Got) -> None:
            found.extend(replies.read_session_bars(AGGS_ENDPOINT, rows, ticker))
            got.attempt.outcome(bar_count=len(rows))

        self._pages(asked, take)
        return found, self.succeeded[before:]

    # one request after another

    def _range(self, ticker: str, resolution: str, schema: str, start: datetime, end: datetime) -> _Asked:
        if _TICKER.fullmatch(ticker) is None:
            raise _invalid(f"{ticker!r} is no contract", "Massive knows contracts only, such as MESH4.", symbol=ticker)
        if start.tzinfo is None or end.tzinfo is None or not start < end:
            raise _invalid(
                f"{start} to {end} is no range: both ends need a time zone, and the start lies before the end",
                "Give a start before the end, as UTC times.",
                start=str(start),
                end=str(end),
            )
        params = {
            "resolution": resolution,
            "window_start.gte": str(to_ns(start)),
            "window_start.lt": str(to_ns(end)),
            "limit": str(self._page_limit),
            "sort": "window_start.asc",
        }
        return _Asked(AGGS_ENDPOINT, f"{AGGS_ENDPOINT}/{ticker}", params, ticker, schema, start, end)

    def _pages(self, asked: _Asked, take: Callable[[list[Mapping[str, Any]], bool, _Got], None]) -> None:
        """Call ``take`` for each page, inside its own attempt."""
        seen: set[str] = set()

        def read(got: _Got) -> str | None:
            rows, delayed = replies.read_results(asked.endpoint, got.body)
            following = got.body.get("next_url")
            if following is not None:
                following = self._own_query(asked.endpoint, following)
                if following in seen or len(seen) >= MAX_PAGES:
                    raise errors.bad_response(asked.endpoint, "leads from page to page without an end", pages=len(seen))
            take(rows, delayed, got)
            return following

        while (following := self._call(asked, read)) is not None:
            seen.add(following)
            asked = asked.next_page(following)

    def _own_query(self, endpoint: str, url: Any) -> str:
        """The query of a ``next_url``. It is asked of the configured service: the key goes nowhere else."""
        own = urlsplit(self._base)
        try:
            parts = urlsplit(url if isinstance(url, str) else "")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        renamed = not self._simulated and host == _OLD_HOST  # the service's earlier name
        if (host, port or own.port) != (own.hostname, own.port) and not renamed:
            raise errors.bad_response(endpoint, "names a next page on another host", host=str(host)[:120])
        pairs = [pair for pair in parse_qsl(parts.query) if pair[0].lower() != "apikey"]
        if not pairs:
            raise errors.bad_response(endpoint, "names a next page that is none")
        return urlencode(sorted(pairs))

    def _call(self, asked: _Asked, read: Callable[[_Got], T]) -> T:
        """One recorded attempt, again after a passing failure; the last failure is raised."""
        number = 1
        while True:
            try:
                return self._attempt(asked, number, read)
            except RetryLater as error:
                wait = error.retry_after_s if error.retry_after_s is not None else float(2 ** (number - 1))
                if number >= self._max_attempts or wait > MAX_WAIT_S:
                    raise
            self._sleep(wait)
            number += 1

    def _attempt(self, asked: _Asked, number: int, read: Callable[[_Got], T]) -> T:
        intent = CallIntent(
            provider=PROVIDER,
            category="market_data",
            endpoint=asked.endpoint,
            params={"path": asked.path, **asked.params},
            simulated=self._simulated,
            symbol=asked.symbol,
            schema=asked.schema,
            start=None if asked.start is None else asked.start.astimezone(UTC),
            end=None if asked.end is None else asked.end.astimezone(UTC),
            attempt=number,
        )
        with self._recorder.attempt(self._context, intent) as attempt:
            self.request_ids.append(attempt.id)
            attempt.about_to_send()
            value = self._send(asked, attempt, read)
        self.succeeded.append(attempt.id)
        return value

    def _send(self, asked: _Asked, attempt: Attempt, read: Callable[[_Got], T]) -> T:
        try:
            answer = self._wire.get(f"{self._base}/{asked.path}", asked.params)
        except raised_by_wire() as error:
            raise self._noted(
                attempt, errors.explain_exception(error, endpoint=asked.endpoint, secret=self._secret)
            ) from None
        digest = hashlib.sha256(answer.body).hexdigest()
        attempt.outcome(http_status=answer.status, response_bytes=len(answer.body), response_sha256=digest)
        if answer.status != 200:
            failure = errors.explain_answer(answer, endpoint=asked.endpoint, secret=self._secret, now=self._clock())
            raise self._noted(attempt, failure)
        body = replies.read_object(asked.endpoint, answer.body)
        attempt.outcome(provider_request_id=errors.request_id_of(body))
        return read(_Got(body, attempt, answer.headers.get("x-blaid-simulated") == "true"))

    @staticmethod
    def _noted(attempt: Attempt, failure: errors.Failure) -> BlaidError:
        attempt.outcome(http_status=failure.http_status, provider_request_id=failure.provider_request_id)
        return failure.error


@dataclass(frozen=True, slots=True)
class _Got:
    """One good answer inside its attempt; ``simulated`` when the server itself says so."""

    body: Mapping[str, Any]
    attempt: Attempt
    simulated: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request: ``endpoint`` is its name in the log, ``path`` where it goes."""

    endpoint: str
    path: str
    params: Mapping[str, str]
    symbol: str | None = None
    schema: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def next_page(self, query: str) -> _Asked:
        params = dict(parse_qsl(query))
        return _Asked(self.endpoint, self.path, params, self.symbol, self.schema, self.start, self.end)


def _usable_key(settings: Settings) -> str:
    if settings.massive_simulated and settings.env is not Environment.SANDBOX:
        raise Refused(
            Reason(
                ReasonCode.SIMULATED_SOURCE_REFUSED,
                f"In the {settings.env.value} world backup data may come from {MASSIVE_OFFICIAL_URL} alone.",
                "Unset BLAID_MASSIVE_URL, or work in the sandbox world (BLAID_ENV=sandbox).",
                {"env": settings.env.value, "base_url": settings.massive_url},
            )
        )
    key = settings.massive_key()
    secret = "" if key is None else key.get_secret_value().strip()
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise StopAndFix(
            Reason(
                ReasonCode.INTEGRATION_KEY_MISSING,
                "There is no Massive key." if not secret else "The Massive key cannot be sent: it is no plain text.",
                "Set MASSIVE_API_KEY (POLYGON_API_KEY is read too); in the sandbox world `blaid init` makes one.",
                {"integration_key": "massive", "variable": "MASSIVE_API_KEY"},
            )
        )
    return secret


def _invalid(message: str, fix: str, **numbers: Any) -> InvalidRequest:
    return InvalidRequest(Reason(ReasonCode.INVALID_REQUEST, f"{message}.", fix, numbers))


def to_ns(moment: datetime) -> int:
    """Nanoseconds since the epoch of an aware datetime, exact."""
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
