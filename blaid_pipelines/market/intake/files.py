"""Reading a file of bars or trades by its name: DBN, Parquet, CSV or a LEAN zip. Ingest decides what becomes of it.

Each format has its module; here is only which one a file is for. What is none of them is refused by name.
"""

from __future__ import annotations

from pathlib import Path

from blaid_pipelines.market.intake.columns import read_csv, read_parquet
from blaid_pipelines.market.intake.dbn import read_dbn_file
from blaid_pipelines.market.intake.lean import read_lean
from blaid_pipelines.market.intake.reading import BARS, Ask, FileBars, read_bytes, unsupported
from blaid_pipelines.market.intake.trades import check_rows

_DBN_ENDINGS = (".dbn", ".dbz")
_PARQUET_ENDINGS = (".parquet", ".pq")
_CSV_ENDINGS = (".csv", ".csv.gz", ".csv.zst", ".txt")


def read_file(path: Path, ask: Ask) -> FileBars:
    """Read one file, by its name's ending: ``.dbn[.zst]``, ``.parquet``, ``.csv[.gz|.zst]``, ``.zip``.

    Raises :class:`StopAndFix` (``FILE_UNREADABLE``, ``FORMAT_UNSUPPORTED``, ``FIELD_MISSING``, ``TIME_INVALID`` and,
    for trades, the codes of :func:`~blaid_pipelines.market.intake.trades.check_rows`) for the file's faults, and
    :class:`InvalidRequest` for what is asked and contradicts it or is not stated.
    """
    data, digest = read_bytes(path)
    name = path.name.lower()
    if any(ending in name for ending in _DBN_ENDINGS):
        file = read_dbn_file(path, digest, ask)
    elif name.endswith(_PARQUET_ENDINGS):
        file = read_parquet(path, data, digest, ask)
    elif name.endswith(_CSV_ENDINGS):
        file = read_csv(path, data, digest, ask)
    elif name.endswith(".zip"):
        file = read_lean(path, data, digest, ask)
    else:
        raise unsupported(path.name, "is no format that Blaid reads")
    if ask.content != BARS:
        check_rows(path.name, file.bars, seconds=ask.content != "trades")
    return file


def read_bar_file(path: Path, symbol: str, stamp: str | None, tz: str | None, schema: str) -> FileBars:
    """The bars of one file; see :func:`read_file`."""
    return read_file(path, Ask(symbol, schema, stamp, tz))
