"""Databento's historical protocol, answered from series: parameters in, status, headers and body out.

No sockets here (``gateway`` has them), so every answer can be read as a function of the request. Replies follow the
service: form posts, DBN in zstd, the simple and the structured error body, 206 where a symbol resolves in part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from blaid_pipelines.providers.databento.dbn import BAR_NANOS, OHLCV_DTYPE, SymbolInterval
from blaid_pipelines.sandbox import encode
from blaid_pipelines.sandbox.contracts import Lead, raw_root
from blaid_pipelines.sandbox.series import DAY, Series, utc_day

SCHEMAS = ("ohlcv-1m", "ohlcv-1h", "ohlcv-1d", "definition")
UNIT_PRICES = {"ohlcv-1m": 70.0, "ohlcv-1h": 200.0, "ohlcv-1d": 200.0, "definition": 5.0}
"""US dollars per 1e9 bytes of uncompressed records."""
_DEFINITION_BYTES = 520
_DOCS = "https://databento.com/docs"


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer; ``streamed`` bodies leave in chunks, as time series do."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    streamed: bool = False


class _Denied(Exception):
    """An error reply on its way out."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def json_reply(value: Any, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(status, json.dumps(value).encode())


def simple_error(status: int, detail: str) -> Reply:
    """An error with the plain body shape."""
    return json_reply({"detail": detail}, status)


def case_error(status: int, case: str, message: str, payload: Mapping[str, Any] | None = None) -> Reply:
    """An error with the structured body shape."""
    detail = {"case": case, "message": message, "status_code": status, "docs": _DOCS, "payload": payload}
    return json_reply({"detail": detail}, status)


def bad_key() -> Reply:
    """What Databento answers to a wrong key."""
    return case_error(401, "auth_authentication_failed", "Authentication failed.")


@dataclass(frozen=True, slots=True)
class _Resolved:
    """Where each requested symbol leads in a range: contract intervals, and the symbols found in part or not at all."""

    found: dict[str, list[tuple[Series, Lead]]]
    partial: list[str]
    not_found: list[str]


class DatabentoHistoricalService:
    """Answers requests over a fixed list of series."""

    def __init__(self, series: Sequence[Series]) -> None:
        self._series = list(series)

    def answer(self, method: str, endpoint: str, params: Mapping[str, str]) -> Reply:
        """The reply to ``method`` on ``endpoint`` (``metadata.get_cost``) with query or form ``params``."""
        handlers = {
            ("GET", "metadata.list_datasets"): self._list_datasets,
            ("GET", "metadata.list_schemas"): self._list_schemas,
            ("GET", "metadata.list_unit_prices"): self._list_unit_prices,
            ("GET", "metadata.get_dataset_range"): self._get_dataset_range,
            ("POST", "metadata.get_cost"): self._get_cost,
            ("POST", "metadata.get_record_count"): self._get_record_count,
            ("POST", "metadata.get_billable_size"): self._get_billable_size,
            ("POST", "symbology.resolve"): self._resolve,
            ("POST", "timeseries.get_range"): self._get_range,
        }
        handler = handlers.get((method, endpoint))
        if handler is None:
            known = any(name == endpoint for _, name in handlers)
            return simple_error(405 if known else 404, "Method Not Allowed" if known else "Not Found")
        try:
            return handler(params)
        except _Denied as denied:
            return denied.reply

    # metadata

    def _list_datasets(self, params: Mapping[str, str]) -> Reply:
        return json_reply(sorted({series.dataset for series in self._series}))

    def _list_schemas(self, params: Mapping[str, str]) -> Reply:
        self._dataset(params)
        return json_reply(list(SCHEMAS))

    def _list_unit_prices(self, params: Mapping[str, str]) -> Reply:
        self._dataset(params)
        return json_reply([{"mode": "historical-streaming", "unit_prices": UNIT_PRICES}])

    def _get_dataset_range(self, params: Mapping[str, str]) -> Reply:
        start, end = self._available(self._dataset(params))
        bounds = {"start": _iso(start), "end": _iso(end)}
        return json_reply({**bounds, "schema": dict.fromkeys(SCHEMAS, bounds)})

    def _get_cost(self, params: Mapping[str, str]) -> Reply:
        query, resolved = self._query(params)
        size = self._size(query, resolved)
        return json_reply(round(size / 1e9 * UNIT_PRICES[query.schema], 9), _status(resolved))

    def _get_billable_size(self, params: Mapping[str, str]) -> Reply:
        query, resolved = self._query(params)
        return json_reply(self._size(query, resolved), _status(resolved))

    def _get_record_count(self, params: Mapping[str, str]) -> Reply:
        query, resolved = self._query(params)
        return json_reply(self._count(query, resolved), _status(resolved))

    # symbology

    def _resolve(self, params: Mapping[str, str]) -> Reply:
        dataset = self._dataset(params)
        start = _date(_needed(params, "start_date"), "start_date")
        end = _date(params["end_date"], "end_date") if params.get("end_date") else start + timedelta(days=1)
        if start >= end:
            raise _Denied(_range_error("data_time_range_start_on_or_after_end", dataset, start, end, (None, None)))
        stype_in, stype_out = _needed(params, "stype_in"), _needed(params, "stype_out")
        if (stype_in, stype_out) not in {
            ("continuous", "instrument_id"),
            ("parent", "instrument_id"),
            ("raw_symbol", "instrument_id"),
            ("instrument_id", "raw_symbol"),
        }:
            message = f"Cannot resolve from {stype_in} to {stype_out}."
            raise _Denied(case_error(422, "symbology_invalid_request", message))
        resolved = self._lookup(dataset, _symbols(params), stype_in, start, end)
        result = {
            symbol: [
                {
                    "d0": max(lead.start, start).isoformat(),
                    "d1": min(lead.end, end).isoformat(),
                    "s": lead.raw_symbol if stype_out == "raw_symbol" else str(lead.instrument_id),
                }
                for _, lead in hits
            ]
            for symbol, hits in resolved.found.items()
        }
        body = {
            "result": result,
            "symbols": _symbols(params),
            "stype_in": stype_in,
            "stype_out": stype_out,
            "start_date": start.isoformat(),
            "end_date": end.isoformat(),
            "partial": resolved.partial,
            "not_found": resolved.not_found,
            "message": "OK" if _status(resolved) == 200 else "Partially resolved",
            "status": 0 if _status(resolved) == 200 else 1,
        }
        return json_reply(body, _status(resolved))

    # time series

    def _get_range(self, params: Mapping[str, str]) -> Reply:
        if params.get("encoding", "dbn") != "dbn" or params.get("compression", "zstd") not in {"zstd", "none"}:
            raise _Denied(simple_error(400, "This gateway serves encoding dbn with compression zstd or none only."))
        query, resolved = self._query(params)
        header = encode.Header(
            dataset=query.dataset,
            schema=query.schema,
            start=query.start,
            end=query.end,
            stype_in=query.stype_in,
            symbols=query.symbols,
            mappings={
                symbol: [
                    SymbolInterval(
                        max(lead.start, utc_day(query.start)),
                        min(lead.end, utc_day(query.end - 1) + timedelta(days=1)),
                        str(lead.instrument_id),
                    )
                    for _, lead in hits
                ]
                for symbol, hits in resolved.found.items()
            },
            partial=resolved.partial,
            not_found=resolved.not_found,
            limit=query.limit,
        )
        records = self._records(query, resolved)
        data = encode.metadata_bytes(header) + records
        if params.get("compression", "zstd") == "zstd":
            data = encode.zstd(data)
        return Reply(_status(resolved), data, "application/octet-stream", streamed=True)

    def _records(self, query: _Query, resolved: _Resolved) -> bytes:
        hits = [hit for found in resolved.found.values() for hit in found]
        if query.schema == "definition":
            inside = {lead.instrument_id: lead for _, lead in hits}
            return encode.definition_bytes(list(inside.values())[: query.limit])[0]
        return b"".join(encode.bar_bytes(part) for part in self._bars(query, hits))

    def _bars(self, query: _Query, hits: Sequence[tuple[Series, Lead]]) -> list[Series]:
        """The bars asked for; one series stays in its own order, several are merged by time."""
        parts = []
        for series in {id(series): series for series, _ in hits}.values():
            ids = np.array([lead.instrument_id for owner, lead in hits if owner is series], dtype=np.int64)
            bars = series.between(*_whole_periods(query)).resampled(query.schema).between(query.start, query.end)
            parts.append(bars.take(np.isin(bars.instrument_id, ids)))
        if len(parts) > 1:
            parts = _merged(parts)
        if query.limit is not None:
            left, limited = query.limit, []
            for part in parts:
                limited.append(part.take(np.arange(min(left, len(part)))))
                left -= len(limited[-1])
            parts = limited
        return parts

    def _count(self, query: _Query, resolved: _Resolved) -> int:
        hits = [hit for found in resolved.found.values() for hit in found]
        if query.schema == "definition":
            return encode.definition_bytes({lead.instrument_id: lead for _, lead in hits}.values())[1]
        return sum(len(part) for part in self._bars(query, hits))

    def _size(self, query: _Query, resolved: _Resolved) -> int:
        each = _DEFINITION_BYTES if query.schema == "definition" else OHLCV_DTYPE.itemsize
        return self._count(query, resolved) * each

    # reading a request

    def _query(self, params: Mapping[str, str]) -> tuple[_Query, _Resolved]:
        dataset = self._dataset(params)
        schema = _needed(params, "schema")
        if schema not in SCHEMAS:
            raise _Denied(simple_error(400, f"Schema {schema} is not available for dataset {dataset}."))
        start = _nanos(_needed(params, "start"), "start")
        end = _nanos(params["end"], "end") if params.get("end") else (start // DAY + 1) * DAY
        available = self._available(dataset)
        if start >= end:
            case = "data_time_range_start_on_or_after_end"
        elif start >= available[1]:
            case = "data_start_after_available_end"
        elif start < available[0]:
            case = "data_start_before_available_start"
        elif end > available[1]:
            case = "data_end_after_available_end"
        else:
            case = None
        if case:
            raise _Denied(_range_error(case, dataset, start, end, available))
        limit = params.get("limit")
        if limit is not None and not limit.isdigit():
            raise _Denied(simple_error(400, "limit must be a whole number."))
        stype_in = params.get("stype_in", "raw_symbol")
        query = _Query(
            dataset, schema, start, end, stype_in, _symbols(params), None if limit is None else int(limit) or None
        )
        last = utc_day(end - 1) + timedelta(days=1)
        return query, self._lookup(dataset, query.symbols, stype_in, utc_day(start), last)

    def _dataset(self, params: Mapping[str, str]) -> str:
        dataset = _needed(params, "dataset")
        if all(series.dataset != dataset for series in self._series):
            raise _Denied(case_error(422, "dataset_not_found", f"Dataset {dataset} was not found."))
        return dataset

    def _available(self, dataset: str) -> tuple[int, int]:
        ranges = [series.available for series in self._series if series.dataset == dataset]
        return min(start for start, _ in ranges), max(end for _, end in ranges)

    def _lookup(self, dataset: str, symbols: Sequence[str], stype_in: str, start: date, end: date) -> _Resolved:
        everything = "ALL_SYMBOLS" in symbols
        resolved = _Resolved({}, [], [])
        own = [series for series in self._series if series.dataset == dataset]
        for symbol in [lead.raw_symbol for series in own for lead in series.leads] if everything else symbols:
            hits = [
                (series, lead)
                for series in own
                for lead in series.leads
                if _stands_for(symbol, "raw_symbol" if everything else stype_in, series, lead)
                and lead.start < end
                and start < lead.end
            ]
            if not hits:
                resolved.not_found.append(symbol)
                continue
            resolved.found[symbol] = hits
            if not everything and not _covers([lead for _, lead in hits], start, end):
                resolved.partial.append(symbol)
        if not resolved.found:
            message = f"None of the symbols could be resolved: {', '.join(symbols)}"
            raise _Denied(case_error(422, "symbology_invalid_request", message))
        return resolved


@dataclass(frozen=True, slots=True)
class _Query:
    dataset: str
    schema: str
    start: int
    end: int
    stype_in: str
    symbols: list[str]
    limit: int | None


def _stands_for(symbol: str, stype_in: str, series: Series, lead: Lead) -> bool:
    if stype_in == "continuous":
        return "." in series.symbol and series.symbol.upper() == symbol.upper()
    if stype_in == "parent":
        return symbol.upper() == f"{raw_root(lead.raw_symbol)}.FUT"
    if stype_in == "instrument_id":
        return symbol == str(lead.instrument_id)
    return stype_in == "raw_symbol" and symbol == lead.raw_symbol


def _covers(leads: Sequence[Lead], start: date, end: date) -> bool:
    cursor = start
    for lead in sorted(leads, key=lambda item: item.start):
        if lead.start > cursor:
            return False
        cursor = max(cursor, lead.end)
    return cursor >= end


def _status(resolved: _Resolved) -> int:
    return 206 if resolved.partial or resolved.not_found else 200


def _whole_periods(query: _Query) -> tuple[int, int]:
    """The range widened to whole periods of the schema, so that a longer bar is made of all its minutes."""
    step = BAR_NANOS[query.schema]
    return query.start // step * step, -(-query.end // step) * step


def _merged(parts: Sequence[Series]) -> list[Series]:
    """Single rows of several series in time order, joined into runs of one series."""
    times = np.concatenate([part.ts_open for part in parts])
    owner = np.concatenate([np.full(len(part), number) for number, part in enumerate(parts)])
    row = np.concatenate([np.arange(len(part)) for part in parts])
    order = np.argsort(times, kind="stable")
    if not len(order):
        return list(parts)
    cuts = np.flatnonzero(np.diff(owner[order])) + 1
    return [parts[int(owner[run[0]])].take(row[run]) for run in np.split(order, cuts)]


def _symbols(params: Mapping[str, str]) -> list[str]:
    symbols = [symbol.strip() for symbol in _needed(params, "symbols").split(",") if symbol.strip()]
    if not symbols or len(symbols) > 2000:
        raise _Denied(simple_error(400, "symbols must hold 1 to 2000 symbols."))
    return list(dict.fromkeys(symbols))


def _needed(params: Mapping[str, str], name: str) -> str:
    value = params.get(name)
    if not value:
        message = f"Parameter {name} is required."
        raise _Denied(case_error(400, "validation_failed", message, {"parameter": name}))
    return value


def _nanos(text: str, name: str) -> int:
    """Nanoseconds of an ISO time (UTC unless it names an offset) or of a plain number of nanoseconds."""
    if text.isdigit():
        return int(text)
    whole, _, fraction = text.partition(".")
    digits = fraction.rstrip("Z").split("+")[0].split("-")[0]
    suffix = fraction[len(digits) :] if fraction else ""
    try:
        moment = datetime.fromisoformat(whole + suffix)
        nanos = int(digits.ljust(9, "0")[:9]) if digits else 0
    except ValueError:
        message = f"{name} is no date or time: {text}"
        raise _Denied(case_error(400, "validation_failed", message, {"parameter": name})) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(moment.timestamp()) * 10**9 + nanos


def _date(text: str, name: str) -> date:
    return utc_day(_nanos(text, name))


def _iso(nanos: int) -> str:
    moment = datetime.fromtimestamp(nanos // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos % 10**9:09d}Z"


def _range_error(
    case: str, dataset: str, start: int | date, end: int | date, available: tuple[int | None, int | None]
) -> Reply:
    def show(value: int | date | None) -> str | None:
        return _iso(value) if isinstance(value, int) else None if value is None else value.isoformat()

    payload = {
        "dataset": dataset,
        "start": show(start),
        "end": show(end),
        "available_start": show(available[0]),
        "available_end": show(available[1]),
    }
    until = f"The dataset {dataset} has data available up to '{payload['available_end']}'."
    message = {
        "data_time_range_start_on_or_after_end": "The start of the range must be before its end.",
        "data_start_after_available_end": until,
        "data_start_before_available_start": f"The dataset {dataset} has data from '{payload['available_start']}'.",
        "data_end_after_available_end": f"{until} The `end` in the query is after the available range.",
    }[case]
    return case_error(422, case, message, payload)
