"""Times of text and Parquet files as nanoseconds UTC: written times with or without a zone, dates, whole numbers.

Nothing is guessed: a time without a zone needs ``--tz``, a whole number that could be anything needs ``--time-unit``. A
local time that the clock showed twice, or never, is no moment, and refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blaid_pipelines.market.intake.reading import TIME_UNITS, unreadable
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix

if TYPE_CHECKING:
    import pandas as pd

Int64 = npt.NDArray[np.int64]

EARLIEST_NS = 0
LATEST_NS = 4_102_444_800_000_000_000
"""1970 and 2100: a futures bar outside them is a wrong time, not an old or a coming one."""
_SURELY_NS = 10**17  # in nanoseconds March 1973; in any coarser unit a year beyond 5000


def times_of(name: str, column: pa.ChunkedArray, tz: str | None, unit: str | None) -> Int64:
    """Stamps as nanoseconds UTC; one row that has none is enough to refuse the file.

    Raises :class:`InvalidRequest` where zone or unit are not stated or contradict the file, :class:`StopAndFix` with
    ``FIELD_MISSING`` (no time), ``FILE_UNREADABLE`` (no readable time) or ``TIME_INVALID`` (no moment, or a moment
    outside 1970 to 2099).
    """
    zone = zone_of(tz)
    kind = column.type
    if column.null_count:
        raise _blank(name, int(np.flatnonzero(column.is_null().to_numpy())[0]), column.null_count)
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if text and len(column) and _is_number(column[0].as_py()):
        column = _numbers(name, column)
        kind = column.type
    if pa.types.is_integer(kind):
        nanos = _counted(name, column, unit)
    elif unit is not None:
        raise _contradiction(name, f"its times are written out, so --time-unit {unit} says nothing about them", unit)
    elif text:
        nanos = _written(name, column, zone)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        nanos = _typed(name, column, zone)
    else:
        raise unreadable(name, f"has times of type {kind}, which are no exact times", type=str(kind))
    beyond = (nanos < EARLIEST_NS) | (nanos >= LATEST_NS)
    if beyond.any():
        raise _no_moment(name, "outside the years 1970 to 2099", beyond, column)
    return nanos


def zone_of(tz: str | None) -> ZoneInfo | None:
    """The IANA zone of that name. Raises :class:`InvalidRequest` for what is none."""
    try:
        return None if tz is None else ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{tz!r} is no time zone",
                "Use an IANA name such as UTC or America/Chicago.",
                {"tz": tz},
            )
        ) from error


def _is_number(text: str) -> bool:
    # Eight digits are a date, 20240205.
    return text.lstrip("-").isdigit() and len(text) != 8


def _numbers(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise unreadable(name, f"has times of more than one form: {error}") from error


def _counted(name: str, column: pa.ChunkedArray, unit: str | None) -> Int64:
    """Whole numbers, in the unit that is stated; unstated only where nothing but nanoseconds makes sense."""
    try:
        values = column.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise unreadable(name, f"has times that are no 64-bit numbers: {error}") from error
    if unit is None and len(values) and int(values.min()) < _SURELY_NS:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{name} has whole numbers for times, and they could count seconds or parts of one",
                "Say what they count: --time-unit s, ms, us or ns.",
                {"file": name, "first": int(values[0])},
            )
        )
    factor = TIME_UNITS[unit or "ns"]
    too_big = np.abs(values) > LATEST_NS // factor
    if too_big.any():
        raise _no_moment(name, f"outside the years 1970 to 2099 when counted in {unit or 'ns'}", too_big, column)
    return np.asarray(values * factor, np.int64)


def _written(name: str, column: pa.ChunkedArray, zone: ZoneInfo | None) -> Int64:
    """ISO 8601: first in arrow's quick reading, then in pandas', which knows more of its forms."""
    import pandas as pd

    for wanted in (pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        try:
            return _typed(name, column.cast(wanted), zone)
        except pa.ArrowInvalid:
            continue
    try:
        series = pd.to_datetime(column.to_pandas(), format="ISO8601")
        if series.dtype.kind != "M" and not isinstance(series.dtype, pd.DatetimeTZDtype):
            raise ValueError("stamps with and without a time zone, or of several zones, are mixed")
    except pd.errors.OutOfBoundsDatetime as error:
        raise _no_moment(name, f"beyond all calendars ({error})", np.zeros(0, bool), column) from error
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        first_line = str(error).splitlines()[0]
        raise unreadable(name, f"has times that cannot be read: {first_line}") from error
    return _placed(name, series, zone, column)


def _typed(name: str, column: pa.ChunkedArray, zone: ZoneInfo | None) -> Int64:
    """Timestamps and dates that are such already."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        try:
            return np.asarray(column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy(), np.int64)
        except pa.ArrowInvalid as error:
            raise _no_moment(name, f"beyond all calendars ({error})", np.zeros(0, bool), column) from error
    return _placed(name, column.to_pandas(), zone, column)


def _placed(name: str, stamps: pd.Series[Any], zone: ZoneInfo | None, column: pa.ChunkedArray) -> Int64:
    """Stamps of pandas as nanoseconds UTC, naive ones read in ``zone``."""
    import pandas as pd

    if not len(stamps):
        return np.empty(0, np.int64)
    try:
        if stamps.dt.tz is None:
            if zone is None:
                raise InvalidRequest(_naive(name))
            in_nanos = stamps.dt.as_unit("ns")
            stamps = in_nanos.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
            unclear = np.asarray(stamps.isna())
            if unclear.any():
                raise _no_moment(name, f"that the clocks of {zone.key} showed twice or not at all", unclear, column)
        return np.asarray(stamps.dt.tz_convert("UTC").dt.as_unit("ns").astype("int64"), np.int64)
    except (pd.errors.OutOfBoundsDatetime, OverflowError) as error:
        raise _no_moment(name, f"beyond all calendars ({error})", np.zeros(0, bool), column) from error


def _naive(name: str) -> Reason:
    return Reason(
        ReasonCode.INVALID_REQUEST,
        f"{name} has times without a time zone",
        "Say which zone they are in: --tz UTC, --tz America/Chicago.",
        {"file": name},
    )


def _contradiction(name: str, problem: str, unit: str) -> InvalidRequest:
    return InvalidRequest(
        Reason(
            ReasonCode.INVALID_REQUEST,
            f"{name} does not fit the request: {problem}",
            "Leave --time-unit out: it is for times that are whole numbers.",
            {"file": name, "time_unit": unit},
        )
    )


def _blank(name: str, row: int, rows: int) -> StopAndFix:
    return StopAndFix(
        Reason(
            ReasonCode.FIELD_MISSING,
            f"{name} has a bar without a time in row {row + 1}",
            "Remove the row or give it its time.",
            {"file": name, "row": row + 1, "rows": rows},
        )
    )


def _no_moment(name: str, why: str, rows: npt.NDArray[np.bool_], column: pa.ChunkedArray) -> StopAndFix:
    numbers: dict[str, Any] = {"file": name}
    if rows.any():
        first = int(np.argmax(rows))
        numbers |= {"row": first + 1, "rows": int(rows.sum()), "time": str(column[first].as_py())}
    return StopAndFix(
        Reason(
            ReasonCode.TIME_INVALID,
            f"{name} has times {why}",
            "Correct or remove the rows, or --tz or --time-unit; times exported in UTC are never unclear.",
            numbers,
        )
    )
