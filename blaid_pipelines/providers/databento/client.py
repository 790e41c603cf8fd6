"""Databento's historical service through its own client, one recorded attempt per HTTP request.

The base URL is configurable, which the client does not offer: ``_point_at`` is the one place that touches its private
attributes (the version is pinned for it), and ``wire`` carries its requests. Everything that comes back is checked
before it is used, and every failure is a reason (``errors``). Rate limits, 5xx, time-outs and broken connections are
tried again a bounded number of times, each attempt with its own row. What may be spent is decided by the caller:
``get_cost`` first, then ``get_bars``.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from blaid_pipelines.proof.recorder import Attempt, CallContext, CallIntent, Recorder
from blaid_pipelines.providers.databento.dbn import (
    BAR_NANOS,
    DbnBars,
    Definition,
    SymbolInterval,
    read_dbn,
    read_definitions,
)
from blaid_pipelines.providers.databento.symbols import stype_of
from blaid_pipelines.providers.databento.wire import Wire
from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode, Refused, RetryLater, StopAndFix
from blaid_pipelines.settings import DATABENTO_OFFICIAL_URL, Environment, Settings

__all__ = ["DatabentoHistorical", "DatasetRange", "Resolved", "read_reply", "stype_of"]

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 100.0
"""Longest time to connect, and longest silence within an answer."""
DEFAULT_DEADLINE_S = 600.0
"""Longest time for one call as a whole, however steadily its answer drips."""
MAX_ATTEMPTS = 3
MAX_WAIT_S = 60.0
"""Longest pause between attempts; when Databento asks for more, the call fails with ``retry_after_s`` instead."""


@dataclass(frozen=True, slots=True)
class DatasetRange:
    """What the key's licence reaches of a dataset; ISO times as sent, ends exclusive, also by schema."""

    start: str
    end: str
    by_schema: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The contracts behind instrument ids on dates, and the requests that said so."""

    contracts: Mapping[int, list[SymbolInterval]]
    request_ids: tuple[UUID, ...]


class DatabentoHistorical:
    """The historical service on behalf of one piece of work (``context``).

    ``request_ids`` lists the row of every attempt made through this object, failed ones included, in order;
    ``succeeded`` those whose answer was used, which is what evidence may cite. Raises
    :class:`StopAndFix` (``INTEGRATION_KEY_MISSING``) without a key, ``SETTINGS_INVALID`` with one that can be none, and
    :class:`Refused` (``SIMULATED_SOURCE_REFUSED``) outside the sandbox world when the base URL is not Databento's own:
    nothing simulated may pass for real there. ``pace`` is called with the endpoint before each attempt and may wait.
    Several threads may share one client.
    """

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        context: CallContext,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
        max_attempts: int = MAX_ATTEMPTS,
        pace: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if settings.databento_simulated and settings.env is not Environment.SANDBOX:
            raise Refused(
                Reason(
                    ReasonCode.SIMULATED_SOURCE_REFUSED,
                    f"In the {settings.env.value} world market data may come from {DATABENTO_OFFICIAL_URL} alone.",
                    "Unset BLAID_DATABENTO_URL, or work in the sandbox world (BLAID_ENV=sandbox).",
                    {"env": settings.env.value, "base_url": settings.databento_url},
                )
            )
        key = settings.databento_key()
        if key is None:
            raise StopAndFix(
                Reason(
                    ReasonCode.INTEGRATION_KEY_MISSING,
                    "There is no Databento key.",
                    "Set DATABENTO_API_KEY; in the sandbox world `blaid init` makes a key for the local gateway.",
                    {"integration_key": "databento", "variable": "DATABENTO_API_KEY"},
                )
            )
        self.request_ids: list[UUID] = []
        self.succeeded: list[UUID] = []
        self._recorder = recorder
        self._context = context
        self._simulated = settings.databento_simulated
        self._secret = key.get_secret_value().strip()
        _check_key(self._secret)
        self._wire = Wire(self._secret, timeout_s, deadline_s)
        self._client = _point_at(settings.databento_url, self._secret, self._wire)
        self._pace = pace
        self._max_attempts = max_attempts
        self._sleep = sleep
        self._clock = clock

    # metadata

    def list_datasets(self) -> list[str]:
        """Codes of the datasets the key may see."""

        def send(_: Attempt) -> list[str]:
            return _strings("metadata.list_datasets", self._client.metadata.list_datasets())

        return self._call(_Call("metadata.list_datasets", {}), send)

    def list_schemas(self, dataset: str) -> list[str]:
        """Schemas of a dataset."""

        def send(_: Attempt) -> list[str]:
            return _strings("metadata.list_schemas", self._client.metadata.list_schemas(dataset))

        return self._call(_Call("metadata.list_schemas", {"dataset": dataset}), send)

    def get_dataset_range(self, dataset: str) -> DatasetRange:
        """What of a dataset is available to the key."""

        def send(_: Attempt) -> DatasetRange:
            return _dataset_range(self._client.metadata.get_dataset_range(dataset))

        return self._call(_Call("metadata.get_dataset_range", {"dataset": dataset}), send)

    def get_cost(
        self, dataset: str, symbol: str, schema: str, stype_in: str | None, start: datetime, end: datetime
    ) -> Decimal:
        """What ``get_bars`` of the same arguments is going to cost, in US dollars; asking is free.

        ``stype_in`` None means the symbol's own form. A cost that is no finite number of at least 0 is BAD_RESPONSE.
        """
        params = _range_params(dataset, symbol, schema, stype_in, start, end)

        def send(_: Attempt) -> Decimal:
            value = self._client.metadata.get_cost(**params)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise _unusable("metadata.get_cost", "is not a cost", value)
            return Decimal(repr(value))

        return self._call(_Call("metadata.get_cost", params, symbol, schema, start, end), send)

    def get_record_count(
        self, dataset: str, symbol: str, schema: str, stype_in: str | None, start: datetime, end: datetime
    ) -> int:
        """How many records ``get_bars`` of the same arguments is going to return; asking is free."""
        params = _range_params(dataset, symbol, schema, stype_in, start, end)

        def send(_: Attempt) -> int:
            value: Any = self._client.metadata.get_record_count(**params)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise _unusable("metadata.get_record_count", "is not a count", value)
            return int(value)

        return self._call(_Call("metadata.get_record_count", params, symbol, schema, start, end), send)

    # symbology

    def resolve(
        self, dataset: str, symbols: Sequence[str], stype_in: str, stype_out: str, start: date, end: date
    ) -> dict[str, list[SymbolInterval]]:
        """For each symbol what it stood for, by UTC date from ``start`` to ``end`` (exclusive).

        Raises :class:`InvalidRequest` with ``SYMBOL_NOT_FOUND`` when a symbol stands for nothing in the range and
        ``PARTIAL_RESOLUTION`` when it does for part of it; the numbers say for which part.
        """
        return self._resolve(dataset, symbols, stype_in, stype_out, start, end, [])

    def _resolve(
        self,
        dataset: str,
        symbols: Sequence[str],
        stype_in: str,
        stype_out: str,
        start: date,
        end: date,
        used: list[UUID],
    ) -> dict[str, list[SymbolInterval]]:
        params = {
            "dataset": dataset,
            "symbols": list(symbols),
            "stype_in": stype_in,
            "stype_out": stype_out,
            "start_date": start.isoformat(),
            "end_date": end.isoformat(),
        }
        only = symbols[0] if len(symbols) == 1 else None
        span = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (start, end)]

        def send(_: Attempt) -> dict[str, list[SymbolInterval]]:
            found = _resolution(self._client.symbology.resolve(**params), symbols)
            strange = [part.symbol for parts in found.values() for part in parts if not part.symbol.isdigit()]
            if stype_out == "instrument_id" and strange:
                raise _unusable("symbology.resolve", "holds ids that are no numbers", strange)
            return found

        return self._call(_Call("symbology.resolve", params, only, None, *span), send, used)

    # time series

    def get_bars(
        self,
        dataset: str,
        symbol: str,
        schema: str,
        start: datetime,
        end: datetime,
        *,
        behind: Resolved | None = None,
        keep: Callable[[UUID, bytes], None] = lambda *_: None,
        before_retry: Callable[[BlaidError], None] = lambda _: None,
    ) -> tuple[DbnBars, list[UUID]]:
        """Bars of one symbol with ``start <= ts_open < end``, the contract behind each, and the requests they rest on.

        Billed. The symbol is resolved first (free), so that one that does not resolve is refused before anything is
        billed; ``behind`` is a resolution of a range around this one, where the caller has it. ``keep`` gets the
        request's id and the reply as it came, before the outcome is on record; ``before_retry`` gets the failure
        before the call is made again, and may raise. A range without trades gives no bars and no error. Raises what
        ``resolve`` raises, ``BAD_RESPONSE`` for bytes that are not the bars asked for, and the failures of the service.
        """
        _check_schema(schema)
        params = _range_params(dataset, symbol, schema, None, start, end)
        resolved = self.resolve_contracts(dataset, symbol, start, end) if behind is None else behind
        used = list(resolved.request_ids)

        def send(attempt: Attempt) -> DbnBars:
            data: bytes = self._client.timeseries.get_range(**params)
            attempt.outcome(response_bytes=len(data), response_sha256=hashlib.sha256(data).hexdigest())
            bars = read_reply(data, resolved, dataset, symbol, schema, start, end)
            keep(attempt.id, data)
            attempt.outcome(bar_count=len(bars))
            return bars

        call = _Call("timeseries.get_range", params, symbol, schema, start, end)
        return self._call(call, send, used, before_retry), used

    def get_definitions(self, dataset: str, symbol: str, start: datetime, end: datetime) -> list[Definition]:
        """The definitions of the contracts behind a symbol, in the order sent. Billed."""
        params = _range_params(dataset, symbol, "definition", None, start, end)

        def send(attempt: Attempt) -> list[Definition]:
            data: bytes = self._client.timeseries.get_range(**params)
            attempt.outcome(response_bytes=len(data), response_sha256=hashlib.sha256(data).hexdigest())
            return _readable("timeseries.get_range", lambda: read_definitions(data))

        return self._call(_Call("timeseries.get_range", params, symbol, "definition", start, end), send)

    def resolve_contracts(self, dataset: str, symbol: str, start: datetime, end: datetime) -> Resolved:
        """The contracts behind a symbol on the days of a range: symbol -> instrument_id, then -> raw_symbol. Free."""
        first, last = _utc(start).date(), (_utc(end) - timedelta(microseconds=1)).date() + timedelta(days=1)
        stype = stype_of(symbol)
        used: list[UUID] = []
        found = self._resolve(dataset, [symbol], stype, "instrument_id", first, last, used)
        intervals = [part for parts in found.values() for part in parts]
        if stype == "raw_symbol":
            named: dict[int, list[SymbolInterval]] = {}
            for part in intervals:
                named.setdefault(int(part.symbol), []).append(SymbolInterval(part.start, part.end, symbol))
            return Resolved(named, tuple(used))
        # an id is asked for on the dates when the symbol stood for it: beyond them it may be unknown, or another's
        spans: dict[tuple[date, date], list[str]] = {}
        for part in intervals:
            ids = spans.setdefault((part.start, part.end), [])
            if part.symbol not in ids:
                ids.append(part.symbol)
        contracts: dict[int, list[SymbolInterval]] = {}
        for (span_start, span_end), ids in spans.items():
            found = self._resolve(dataset, ids, "instrument_id", "raw_symbol", span_start, span_end, used)
            for instrument, parts in found.items():
                contracts.setdefault(int(instrument), []).extend(parts)
        return Resolved(contracts, tuple(used))

    # one request after another

    def _call(
        self,
        call: _Call,
        send: Callable[[Attempt], T],
        used: list[UUID] | None = None,
        before_retry: Callable[[BlaidError], None] = lambda _: None,
    ) -> T:
        """``send`` inside a recorded attempt, again after a passing failure; the last failure is raised.

        The id of the attempt that succeeded is added to ``used``.
        """
        number = 1
        while True:
            try:
                value, attempt_id = self._attempt(call, number, send)
            except BlaidError as error:
                wait = _pause(error, number)
                if wait is None or number >= self._max_attempts or wait > MAX_WAIT_S:
                    raise
                before_retry(error)
            else:
                if used is not None:
                    used.append(attempt_id)
                return value
            self._sleep(wait)
            number += 1

    def _attempt(self, call: _Call, number: int, send: Callable[[Attempt], T]) -> tuple[T, UUID]:
        from blaid_pipelines.providers.databento import errors

        self._pace(call.endpoint)
        with self._recorder.attempt(self._context, call.intent(number, self._simulated)) as attempt:
            self.request_ids.append(attempt.id)
            attempt.about_to_send()
            try:
                value = send(attempt)
            except BlaidError:
                self._answered(attempt)
                raise
            except errors.raised_by_client() as error:
                self._answered(attempt)
                failure = errors.explain(error, endpoint=call.endpoint, secret=self._secret, now=self._clock())
                attempt.outcome(http_status=failure.http_status, provider_request_id=failure.provider_request_id)
                raise failure.error from None
            self._answered(attempt)
            attempt.outcome(cost_usd=value if isinstance(value, Decimal) else None)
        self.succeeded.append(attempt.id)
        return value, attempt.id

    def _answered(self, attempt: Attempt) -> None:
        status, request_id = self._wire.last()
        attempt.outcome(http_status=status, provider_request_id=request_id)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call to make: what is asked, and about what."""

    endpoint: str
    params: Mapping[str, Any]
    symbol: str | None = None
    schema: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def intent(self, number: int, simulated: bool) -> CallIntent:
        return CallIntent(
            provider="databento",
            category="market_data",
            endpoint=self.endpoint,
            params=self.params,
            simulated=simulated,
            symbol=self.symbol,
            schema=self.schema,
            start=None if self.start is None else _utc(self.start),
            end=None if self.end is None else _utc(self.end),
            attempt=number,
        )


def read_reply(
    data: bytes, resolved: Resolved, dataset: str, symbol: str, schema: str, start: datetime, end: datetime
) -> DbnBars:
    """The bars of a reply to ``timeseries.get_range``, after every check; ``BAD_RESPONSE`` where one fails."""
    bars = _readable("timeseries.get_range", lambda: read_dbn(data, resolved.contracts))
    _check_bars(bars, dataset, symbol, schema, start, end, resolved.contracts)
    return bars


def _check_key(key: str) -> None:
    """Refuse a key that cannot be sent as it is, before anything is sent."""
    if key and not (key.isascii() and key.isprintable()):
        raise StopAndFix(
            Reason(
                ReasonCode.SETTINGS_INVALID,
                "DATABENTO_API_KEY holds signs that no key has: something else than the key was copied",
                "Copy the key from Databento's portal again; it begins with db- and holds letters and digits alone.",
                {"variable": "DATABENTO_API_KEY", "length": len(key)},
            )
        )


def _check_schema(schema: str) -> None:
    if schema not in BAR_NANOS:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"Schema {schema!r} holds no bars.",
                f"Use one of: {', '.join(BAR_NANOS)}.",
                {"schema": schema},
            )
        )


def _point_at(base_url: str, key: str, wire: Wire) -> Any:
    """A databento client that talks to ``base_url`` through ``wire``, over plain http too (its own forces https)."""
    import databento

    try:
        client = databento.Historical(key=key)
    except ValueError:
        raise StopAndFix(
            Reason(
                ReasonCode.INTEGRATION_KEY_MISSING,
                "The Databento key is empty.",
                "Set DATABENTO_API_KEY.",
                {"integration_key": "databento", "variable": "DATABENTO_API_KEY"},
            )
        ) from None
    for family in ("batch", "metadata", "symbology", "timeseries"):
        api = getattr(client, family)
        api._base_url = f"{base_url.rstrip('/')}/v0/{family}"
        api._get, api._post, api._stream = wire.get, wire.post, wire.stream
    return client


def _pause(error: BlaidError, number: int) -> float | None:
    """Seconds until the next attempt makes sense; None when it does not."""
    if not isinstance(error, RetryLater):
        return None
    return error.retry_after_s if error.retry_after_s is not None else float(2 ** (number - 1))


def _range_params(
    dataset: str, symbol: str, schema: str, stype_in: str | None, start: datetime, end: datetime
) -> dict[str, Any]:
    """Arguments of the client for one symbol and range; raises :class:`InvalidRequest` on a reversed or naive one."""
    if start.tzinfo is None or end.tzinfo is None or not start < end:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{start} to {end} is no range: both ends need a time zone, and the start lies before the end.",
                "Give a start before the end, as dates or UTC times.",
                {"start": str(start), "end": str(end)},
            )
        )
    return {
        "dataset": dataset,
        "symbols": [symbol],
        "schema": schema,
        "stype_in": stype_in or stype_of(symbol),
        "start": _utc(start).isoformat(),
        "end": _utc(end).isoformat(),
    }


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _readable(endpoint: str, read: Callable[[], T]) -> T:
    """A file error in a reply is the provider's bad answer, not a file of ours."""
    try:
        return read()
    except StopAndFix as error:
        raise _unusable(endpoint, f"cannot be used: {error.reason.message}") from None


def _unusable(endpoint: str, what: str, value: Any = None) -> BlaidError:
    from blaid_pipelines.providers.databento import errors

    return errors.bad_response(endpoint, what, **({} if value is None else {"value": str(value)[:200]}))


def _strings(endpoint: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _unusable(endpoint, "is not a list of names", value)
    return value


def _dataset_range(value: Any) -> DatasetRange:
    try:
        by_schema = {name: (str(span["start"]), str(span["end"])) for name, span in value.get("schema", {}).items()}
        found = DatasetRange(str(value["start"]), str(value["end"]), by_schema)
        ordered = datetime.fromisoformat(found.start[:19]) < datetime.fromisoformat(found.end[:19])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _unusable("metadata.get_dataset_range", "is not a range", value) from None
    if not ordered:
        raise _unusable("metadata.get_dataset_range", "is not a range", value)
    return found


def _resolution(value: Any, symbols: Sequence[str]) -> dict[str, list[SymbolInterval]]:
    try:
        found = {
            str(symbol): [
                SymbolInterval(date.fromisoformat(part["d0"]), date.fromisoformat(part["d1"]), str(part["s"]))
                for part in parts
            ]
            for symbol, parts in value["result"].items()
        }
        partial, not_found = list(value["partial"]), list(value["not_found"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _unusable("symbology.resolve", "is not a resolution", value) from None
    _refuse_unresolved([*not_found, *(s for s in symbols if not found.get(s) and s not in not_found)], partial, found)
    return found


def _refuse_unresolved(
    not_found: Sequence[str], partial: Sequence[str], found: Mapping[str, Sequence[SymbolInterval]]
) -> None:
    if not_found:
        raise InvalidRequest(
            Reason(
                ReasonCode.SYMBOL_NOT_FOUND,
                f"Databento knows no {', '.join(not_found)} in this range.",
                "Check the symbol: MES.c.0 (continuous), MES.FUT (parent) or a contract such as MESH4.",
                {"not_found": list(not_found)},
            )
        )
    if partial:
        spans = {
            symbol: [[part.start.isoformat(), part.end.isoformat()] for part in found.get(symbol, ())]
            for symbol in partial
        }
        raise InvalidRequest(
            Reason(
                ReasonCode.PARTIAL_RESOLUTION,
                f"{', '.join(partial)} can be resolved for part of the range only.",
                "Ask for the part that resolves; the numbers hold its dates (end exclusive).",
                {"partial": list(partial), "resolved": spans},
            )
        )


def _check_bars(
    bars: DbnBars,
    dataset: str,
    symbol: str,
    schema: str,
    start: datetime,
    end: datetime,
    contracts: Mapping[int, Sequence[SymbolInterval]],
) -> None:
    """Whether a reply is what was asked for: dataset, schema, symbol, range, contracts that symbology knows."""
    endpoint = "timeseries.get_range"
    if (bars.dataset, bars.schema) != (dataset, schema):
        raise _unusable(endpoint, "holds something else than was asked for", f"{bars.dataset} {bars.schema}")
    _refuse_unresolved(bars.not_found, bars.partial, {})
    if [name.upper() for name in bars.symbols] != [symbol.upper()]:
        raise _unusable(endpoint, "holds other symbols than were asked for", bars.symbols)
    if not len(bars):
        return
    low, high = _nanos(start), _nanos(end)
    outside = int(((bars.ts_open < low) | (bars.ts_open >= high)).sum())
    if outside:
        raise _unusable(endpoint, "holds bars outside of the range asked for", outside)
    unknown = [name for name in bars.contracts if name.startswith("#")]
    if unknown:
        raise _unusable(endpoint, "holds bars of contracts that symbology does not name", unknown)


def _nanos(moment: datetime) -> int:
    since = _utc(moment) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
