"""Reading files about contracts: DBN definitions and statistics, and CSV of either. What they mean is in ``contracts``.

CSV has a column ``contract`` (or ``raw_symbol``, ``symbol``) and either ``expiration``, with what else a definition
says (``activation``, ``tick_size``, ``currency``, ``mic``, ``point_value``, ``instrument_id``), or ``session_date``
(or ``date``) with ``open_interest`` or ``volume``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pyarrow as pa

from blaid_pipelines.market.bars import from_ns
from blaid_pipelines.market.instruments import instrument_root, is_contract
from blaid_pipelines.market.intake.columns import csv_table, named_columns
from blaid_pipelines.market.intake.reading import read_bytes, unreadable, unsupported
from blaid_pipelines.market.intake.times import times_of
from blaid_pipelines.providers.databento.dbn import (
    CLEARED_VOLUME,
    OPEN_INTEREST,
    ContractMap,
    Definition,
    Statistic,
    open_dbn,
    read_definitions,
    read_statistics,
)
from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix

_CONTRACT = ("contract", "raw_symbol", "symbol")
_SESSION = ("session_date", "date")


@dataclass(frozen=True, slots=True)
class DayCount:
    """What was said of one contract's session: its cleared volume, its open interest at the end, or both."""

    contract: str
    session_date: date
    volume: int | None
    open_interest: int | None
    ts_event: int | None = None

    def then(self, later: DayCount) -> DayCount:
        """Both statements together; where they speak of the same count the later one holds."""
        return replace(
            later,
            volume=self.volume if later.volume is None else later.volume,
            open_interest=self.open_interest if later.open_interest is None else later.open_interest,
        )


@dataclass(frozen=True)
class ReferenceFile:
    """What one file says of contracts; ``whole_definitions`` where a field that is left out is a fault."""

    name: str
    sha256: str
    simulated: bool
    definitions: list[Definition]
    days: list[DayCount]
    whole_definitions: bool = True


def read_reference(path: Path, names: ContractMap, tz: str | None) -> ReferenceFile:
    """Read one file. ``names`` gives contracts for instrument ids that a statistics file leaves unnamed.

    Raises :class:`StopAndFix`: ``FILE_UNREADABLE``, ``FORMAT_UNSUPPORTED`` (also a DBN file of another schema),
    ``FIELD_MISSING``, ``DATA_UNAVAILABLE`` (a file that says nothing of contracts).
    """
    data, digest = read_bytes(path)
    name = path.name.lower()
    if ".dbn" in name or ".dbz" in name:
        found = _dbn(path, digest, names)
    elif name.endswith((".csv", ".csv.gz", ".csv.zst", ".txt")):
        found = _csv(path.name, csv_table(path.name, data), digest, tz)
    else:
        raise unsupported(path.name, "is neither DBN nor CSV")
    if not found.definitions and not found.days:
        raise StopAndFix(
            Reason(
                ReasonCode.DATA_UNAVAILABLE,
                f"{path.name} holds no definition, open interest or cleared volume",
                "Give definitions, or statistics that hold open interest.",
                {"file": path.name},
            )
        )
    return found


def _dbn(path: Path, digest: str, names: ContractMap) -> ReferenceFile:
    file = open_dbn(path)
    if file.schema == "definition":
        return ReferenceFile(path.name, digest, file.simulated, read_definitions(file), [])
    if file.schema == "statistics":
        counts = [_day_count(path.name, statistic) for statistic in read_statistics(file, names)]
        return ReferenceFile(path.name, digest, file.simulated, [], [count for count in counts if count is not None])
    holds = "mixed records" if file.schema is None else f"schema {file.schema}"
    raise unsupported(path.name, f"holds {holds}, neither definitions nor statistics", schema=file.schema)


def _day_count(name: str, statistic: Statistic) -> DayCount | None:
    """Open interest and cleared volume alone; prices and everything else that is a statistic is left aside."""
    if statistic.kind not in {CLEARED_VOLUME, OPEN_INTEREST} or statistic.deleted:
        return None
    if statistic.quantity is None or statistic.ts_ref is None:
        raise StopAndFix(
            Reason(
                ReasonCode.FIELD_MISSING,
                f"{name} has a count of {statistic.contract} without a number or without its session",
                "Fetch the file again; a count that is of no session cannot be used.",
                {"file": name, "contract": statistic.contract, "kind": statistic.kind},
            )
        )
    if statistic.quantity < 0:
        raise unreadable(name, f"has a negative count of {statistic.contract}", quantity=statistic.quantity)
    volume, interest = (statistic.quantity, None) if statistic.kind == CLEARED_VOLUME else (None, statistic.quantity)
    day = from_ns(statistic.ts_ref).date()
    return DayCount(statistic.contract, day, volume, interest, statistic.ts_event)


def _csv(name: str, table: pa.Table, digest: str, tz: str | None) -> ReferenceFile:
    columns = named_columns(name, table)
    contract = next((each for each in _CONTRACT if each in columns), None)
    session = next((each for each in _SESSION if each in columns), None)
    counts = {"volume", "open_interest"} & columns.keys()
    if contract is None or not ("expiration" in columns or (session is not None and counts)):
        raise StopAndFix(
            Reason(
                ReasonCode.FIELD_MISSING,
                f"{name} has no columns that say something of contracts",
                "Name the columns contract and expiration, or contract, session_date and open_interest.",
                {"file": name, "present": sorted(columns)[:50]},
            )
        )
    symbols = [str(value) for value in _texts(name, columns[contract], contract)]
    if "expiration" in columns:
        definitions = _definitions(name, symbols, columns, tz)
        return ReferenceFile(name, digest, False, definitions, [], whole_definitions=False)
    assert session is not None
    days = [_session(name, text) for text in _texts(name, columns[session], session)]
    rows = len(symbols)
    volume = _numbers(name, columns, "volume", rows, _count)
    interest = _numbers(name, columns, "open_interest", rows, _count)
    for row, (traded, held) in enumerate(zip(volume, interest, strict=True)):
        if traded is None and held is None:
            raise unreadable(name, f"says nothing of {symbols[row]} in row {row + 1}", row=row + 1)
    found = [DayCount(*each) for each in zip(symbols, days, volume, interest, strict=True)]
    return ReferenceFile(name, digest, False, [], found)


def _definitions(
    name: str, symbols: list[str], columns: dict[str, pa.ChunkedArray], tz: str | None
) -> list[Definition]:
    texts = _texts(name, columns["expiration"], "expiration")
    dates_only = [row for row, text in enumerate(texts) if len(text) <= len("2024-03-15")]
    if dates_only:
        row = dates_only[0]
        raise unreadable(name, f"gives a day and no time as expiration in row {row + 1}", row=row + 1)
    expiration = times_of(name, columns["expiration"], tz, None).tolist()
    rows = len(symbols)
    blank = "activation" not in columns or columns["activation"].null_count
    activation = [None] * rows if blank else times_of(name, columns["activation"], tz, None).tolist()
    tick = _numbers(name, columns, "tick_size", rows, _nanos)
    point = _numbers(name, columns, "point_value", rows, _nanos)
    ids = _numbers(name, columns, "instrument_id", rows, _count)
    currency, mic = (_optional(columns, each, rows) for each in ("currency", "mic"))
    found = []
    for row, symbol in enumerate(symbols):
        root = instrument_root(symbol) if is_contract(symbol) else ""
        size = point[row]
        found.append(
            Definition(
                ts_event=0,
                instrument_id=ids[row] or 0,
                raw_symbol=symbol,
                asset=root,
                exchange=mic[row],
                instrument_class="F",
                security_type="FUT",
                currency=currency[row],
                min_price_increment=tick[row],
                unit_of_measure="",
                # as Databento gives it: of Treasuries the face value, a hundredfold
                unit_of_measure_qty=size * 100 if size is not None and root in {"ZN", "ZB"} else size,
                min_trade_vol=None,
                max_trade_vol=None,
                activation=activation[row],
                expiration=expiration[row],
            )
        )
    return found


def _texts(name: str, column: pa.ChunkedArray, title: str) -> list[str]:
    values = column.cast(pa.string()).to_pylist()
    for row, value in enumerate(values):
        if value is None or not value.strip():
            raise StopAndFix(
                Reason(
                    ReasonCode.FIELD_MISSING,
                    f"{name} has no {title} in row {row + 1}",
                    "Fill it in or remove the row.",
                    {"file": name, "row": row + 1, "column": title},
                )
            )
    return [value.strip() for value in values]


def _optional(columns: dict[str, pa.ChunkedArray], title: str, rows: int) -> list[str]:
    if title not in columns:
        return [""] * rows
    return [(value or "").strip() for value in columns[title].cast(pa.string()).to_pylist()]


def _numbers(
    name: str, columns: dict[str, pa.ChunkedArray], title: str, rows: int, read: Callable[[str], int]
) -> list[int | None]:
    values: list[int | None] = []
    for row, text in enumerate(_optional(columns, title, rows)):
        try:
            values.append(read(text) if text else None)
        except (ValueError, InvalidOperation):
            raise unreadable(name, f"has {text!r} for {title} in row {row + 1}", row=row + 1) from None
    return values


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _nanos(text: str) -> int:
    value = Decimal(text) * 10**9
    if not value.is_finite() or value != value.to_integral_value():
        raise ValueError(text)
    return int(value)


def _session(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise unreadable(name, f"has {text!r} for a session, which is no day such as 2024-03-15") from None
