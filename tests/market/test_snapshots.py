"""Lake and snapshots: whole files or none, bytes checked on every load, no use without a passing verdict."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from blaid_pipelines.market.bars import Bars, from_ns, to_ns
from blaid_pipelines.market.gate.quality import judge
from blaid_pipelines.market.lake import snapshots
from blaid_pipelines.market.lake.files import read_file, write_atomically, write_segment
from blaid_pipelines.market.lake.snapshots import (
    FilePart,
    Series,
    create_snapshot,
    current_head,
    get_snapshot,
    load_bars,
    require_pass,
    resolve_snapshot,
    verdict_of,
)
from blaid_pipelines.market.lake.verified import VerifiedFiles
from blaid_pipelines.reasons import BlaidError, InvalidRequest, ReasonCode, Refused
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import QualityVerdict, SeriesHead, Snapshot
from tests.market.helpers import END, START, THRESHOLDS, clean_bars

CLEAN = clean_bars()
SPAN = (to_ns(START), to_ns(END))
PROVENANCE = {"source": "file", "source_key": "file", "request_ids": []}


def snapshot_of(
    store: Store, settings: Settings, bars: Bars = CLEAN, symbol: str = "MES.c.0", note: str = ""
) -> Snapshot:
    provenance = {**PROVENANCE, "note": note}
    files = write_segment(settings.lake, "FILE", "ohlcv-1m", symbol, bars, *SPAN, provenance)
    parts = [FilePart(file.path, file.sha256, file.start_ns, file.end_ns) for file in files]
    series = Series("FILE", "ohlcv-1m", symbol, "MES")
    return create_snapshot(store, settings.lake, series, *SPAN, parts, provenance, False, "0" * 31 + "1")


def code_of(error: BlaidError) -> ReasonCode:
    return error.reason.code


def test_a_year_is_a_folder_and_analysts_read_it(tmp_path: Path) -> None:
    new_year = (datetime(2023, 12, 28, 23, tzinfo=UTC), datetime(2024, 1, 3, 22, tzinfo=UTC))
    bars = clean_bars(*new_year)
    files = write_segment(tmp_path, "GLBX.MDP3", "ohlcv-1m", "MES.c.0", bars, *map(to_ns, new_year), {})
    assert [file.path.split("/")[:5] for file in files] == [
        ["bars", "dataset=GLBX.MDP3", "schema=ohlcv-1m", "symbol=MES.c.0", f"year={year}"] for year in (2023, 2024)
    ]
    assert sum(file.bar_count for file in files) == len(bars)
    assert files[0].end_ns == files[1].start_ns == to_ns(datetime(2024, 1, 1, tzinfo=UTC))
    [(count, symbols, first)] = duckdb.sql(
        f"select count(*), any_value(symbol), min(ts_open)::varchar from read_parquet('{tmp_path}/bars/**/*.parquet',"
        " hive_partitioning = true)"
    ).fetchall()
    assert (count, symbols) == (len(bars), "MES.c.0")
    assert first.startswith("2023-12-28")


def test_the_same_bars_give_the_same_file_and_no_temporary_stays(tmp_path: Path) -> None:
    files = [write_segment(tmp_path, "D", "ohlcv-1m", "MES.c.0", CLEAN, *SPAN, {}) for _ in range(2)]
    assert files[0] == files[1]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{files[0][0].sha256}.parquet"]


def test_a_process_killed_before_the_rename_leaves_nothing_visible(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "file.parquet"
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from blaid_pipelines.market.lake import files as lake\n"
        "lake.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "lake.write_atomically(Path(sys.argv[1]), b'x' * 100_000)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(target)], env=dict(os.environ), check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not target.exists()
    assert not list(target.parent.glob("*.parquet")), "what is left has a name that no reader's pattern takes"
    write_atomically(target, b"whole")
    assert target.read_bytes() == b"whole"


def test_a_failed_write_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("blaid_pipelines.market.lake.files.os.replace", no_space)
        with pytest.raises(BlaidError, match="No space left"):
            write_segment(tmp_path, "D", "ohlcv-1m", "MES.c.0", CLEAN, *SPAN, {})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_snapshot_loads_what_was_written(store: Store, settings: Settings) -> None:
    snapshot = snapshot_of(store, settings)
    assert snapshot.content_hash == CLEAN.content_hash()
    assert (snapshot.bar_count, snapshot.instrument, snapshot.contracts) == (len(CLEAN), "MES", ["MESH4"])
    assert snapshot.first_ts == START
    assert load_bars(store, settings.lake, snapshot).content_hash() == snapshot.content_hash


def test_the_same_content_and_provenance_are_one_row_and_another_provenance_another(
    store: Store, settings: Settings
) -> None:
    first, again, other = (snapshot_of(store, settings, note=note) for note in ("a", "a", "b"))
    assert first.snapshot_id == again.snapshot_id != other.snapshot_id
    assert first.content_hash == other.content_hash
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Snapshot)) == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "replaced"])
def test_a_spoilt_file_is_refused(store: Store, settings: Settings, damage: str) -> None:
    snapshot = snapshot_of(store, settings)
    path = settings.lake / snapshot.files[0]["path"]
    data = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif damage == "cut":
        path.write_bytes(data[:-10])
    elif damage == "gone":
        path.unlink()
    else:
        other = write_segment(settings.lake, "X", "ohlcv-1m", "MES.c.0", clean_bars(seed=1), *SPAN, {})[0]
        path.write_bytes((settings.lake / other.path).read_bytes())
    with pytest.raises(Refused) as caught:
        load_bars(store, settings.lake, snapshot)
    assert code_of(caught.value) is ReasonCode.SNAPSHOT_CORRUPT


def test_a_file_that_is_no_bar_file_is_refused(tmp_path: Path) -> None:
    from blaid_pipelines.ids import sha256_hex

    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(Refused) as caught:
        read_file(tmp_path, "x.parquet", sha256_hex(b"not parquet"))
    assert code_of(caught.value) is ReasonCode.SNAPSHOT_CORRUPT


def test_an_unknown_snapshot_is_missing(store: Store) -> None:
    with pytest.raises(InvalidRequest) as caught:
        get_snapshot(store, "nope")
    assert code_of(caught.value) is ReasonCode.SNAPSHOT_MISSING


def test_which_snapshot_a_bot_reads(store: Store, settings: Settings) -> None:
    def resolved(symbol: str | None) -> str:
        return resolve_snapshot(store, "MES", symbol, "ohlcv-1m").snapshot_id

    with pytest.raises(Refused) as caught:
        resolved(None)
    assert code_of(caught.value) is ReasonCode.SNAPSHOT_MISSING
    old = snapshot_of(store, settings, symbol="MESH4", note="old")
    assert resolved(None) == old.snapshot_id
    new = snapshot_of(store, settings, symbol="MESH4", note="new")
    assert resolved(None) == resolved("MESH4") == new.snapshot_id
    with pytest.raises(Refused) as caught:
        resolved("MESM4")
    assert code_of(caught.value) is ReasonCode.SNAPSHOT_MISSING
    other = snapshot_of(store, settings, symbol="MESM4")
    with pytest.raises(Refused) as caught:
        resolved(None)
    assert code_of(caught.value) is ReasonCode.SNAPSHOT_AMBIGUOUS
    assert resolved("MESM4") == other.snapshot_id
    lead = snapshot_of(store, settings, symbol="MES.c.0")
    assert resolved(None) == lead.snapshot_id
    with pytest.raises(Refused):
        resolve_snapshot(store, "MES", None, "ohlcv-1h")


def test_what_is_named_last_counts_even_where_it_is_an_old_one(store: Store, settings: Settings) -> None:
    assert current_head(store, "MESH4", "ohlcv-1m") is None
    first = snapshot_of(store, settings, symbol="MESH4", note="first")
    snapshot_of(store, settings, symbol="MESH4", note="second")
    for _ in range(2):
        again = snapshot_of(store, settings, symbol="MESH4", note="first")
        assert again.created_at == first.created_at
        assert resolve_snapshot(store, "MES", None, "ohlcv-1m").snapshot_id == first.snapshot_id
    head = current_head(store, "MESH4", "ohlcv-1m")
    assert head is not None
    assert (head.snapshot_id, head.source_key, head.dataset) == (first.snapshot_id, "file", "FILE")
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(SeriesHead)) == 3


def test_a_snapshot_and_its_head_are_written_together_or_not_at_all(store: Store, settings: Settings) -> None:
    with store.session() as session:
        session.execute(text("ALTER TABLE blaid.series_heads ADD CONSTRAINT no CHECK (symbol <> 'MESH4')"))
    with pytest.raises(IntegrityError):
        snapshot_of(store, settings, symbol="MESH4")
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Snapshot)) == 0


def test_a_verdict_is_written_pass_or_fail_and_the_newest_counts(store: Store, settings: Settings) -> None:
    snapshot = snapshot_of(store, settings)
    with pytest.raises(Refused) as caught:
        require_pass(store, snapshot)
    assert code_of(caught.value) is ReasonCode.DATA_QUALITY_UNKNOWN

    passed = judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p1", trace_id="1" * 32)
    assert (passed.status, passed.content_hash, passed.reasons) == ("PASS", snapshot.content_hash, [])
    assert require_pass(store, snapshot).id == passed.id
    assert require_pass(store, snapshot, policy_hash="p1").id == passed.id
    with pytest.raises(Refused) as caught:
        require_pass(store, snapshot, policy_hash="p2")
    assert code_of(caught.value) is ReasonCode.DATA_QUALITY_UNKNOWN

    stricter = THRESHOLDS.model_copy(update={"min_bars": 10**6})
    failed = judge(store, settings.lake, snapshot, stricter, policy_hash="p2", trace_id="1" * 32)
    assert failed.status == "FAIL"
    assert [reason["code"] for reason in failed.reasons] == ["BAR_COUNT_TOO_LOW"]
    with pytest.raises(Refused) as caught:
        require_pass(store, snapshot)
    assert [reason.code for reason in caught.value.reasons] == [
        ReasonCode.DATA_QUALITY_FAILED,
        ReasonCode.BAR_COUNT_TOO_LOW,
    ]


def test_verdicts_that_do_not_count(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = snapshot_of(store, settings)
    judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p", trace_id="1" * 32)
    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "SUITE_VERSION", "quality-next")
        with pytest.raises(Refused) as caught:
            require_pass(store, snapshot)
        assert code_of(caught.value) is ReasonCode.DATA_QUALITY_UNKNOWN
    with store.session() as session:
        session.add(
            QualityVerdict(
                snapshot_id=snapshot.snapshot_id,
                content_hash="of other bars",
                status="PASS",
                policy_hash="p",
                suite_version="quality-1",
                checks=[],
                reasons=[],
                trace_id="1" * 32,
            )
        )
    with pytest.raises(Refused) as caught:
        require_pass(store, snapshot)
    assert code_of(caught.value) is ReasonCode.DATA_QUALITY_UNKNOWN


def test_a_spoilt_snapshot_gets_no_verdict(store: Store, settings: Settings) -> None:
    snapshot = snapshot_of(store, settings)
    (settings.lake / snapshot.files[0]["path"]).unlink()
    with pytest.raises(Refused):
        judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p", trace_id="1" * 32)
    assert verdict_of(store, snapshot.snapshot_id) is None


def test_a_snapshot_may_use_a_part_of_a_file(store: Store, settings: Settings) -> None:
    files = write_segment(settings.lake, "FILE", "ohlcv-1m", "MESH4", CLEAN, *SPAN, {})
    middle = to_ns(datetime(2024, 2, 6, tzinfo=UTC))
    parts = [FilePart(files[0].path, files[0].sha256, middle, SPAN[1])]
    series = Series("FILE", "ohlcv-1m", "MESH4", "MES")
    snapshot = create_snapshot(store, settings.lake, series, middle, SPAN[1], parts, PROVENANCE, False, "2" * 32)
    assert snapshot.first_ts == from_ns(middle)
    assert snapshot.content_hash == CLEAN.slice(middle, SPAN[1]).content_hash()
    assert load_bars(store, settings.lake, snapshot).content_hash() == snapshot.content_hash


@pytest.mark.parametrize("change", ["a check says FAIL", "a check is gone"])
def test_a_passing_verdict_counts_only_whole(store: Store, settings: Settings, change: str) -> None:
    snapshot = snapshot_of(store, settings)
    true = judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p", trace_id="1" * 32)
    checks = [dict(check, status="PASS") for check in true.checks]
    if change == "a check says FAIL":
        checks[0]["status"] = "FAIL"
    else:
        del checks[0]
    with store.session() as session:
        session.add(
            QualityVerdict(
                snapshot_id=snapshot.snapshot_id,
                content_hash=snapshot.content_hash,
                status="PASS",
                policy_hash="p",
                suite_version=true.suite_version,
                checks=checks,
                reasons=[],
                trace_id="1" * 32,
            )
        )
    with pytest.raises(Refused):
        require_pass(store, snapshot)


def test_files_are_hashed_once_and_again_when_they_change(tmp_path: Path) -> None:
    now = [0]

    def later(seconds: int) -> VerifiedFiles:
        now[0] = max(path.stat().st_ctime_ns for path in tmp_path.rglob("*.parquet")) + seconds * 10**9
        return VerifiedFiles(tmp_path, lambda: now[0])

    [file] = write_segment(tmp_path, "D", "ohlcv-1m", "MES.c.0", CLEAN, *SPAN, {})
    path = tmp_path / file.path
    first = later(1)
    assert first.intact(file.path, file.sha256)
    first.save()
    assert not (tmp_path / ".blaid").exists(), "written a moment ago: it could change without looking changed"
    for _ in range(2):
        known = later(10)
        assert known.intact(file.path, file.sha256)
        known.save()
    assert known.hashed == 0, "seen before, untouched"
    assert not known.intact(file.path, "0" * 64)
    looks = path.stat()
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(looks.st_atime_ns, looks.st_mtime_ns))
    changed = later(10)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (looks.st_size, looks.st_mtime_ns)
    assert not changed.intact(file.path, file.sha256), "the time of change was set back, that of the inode cannot be"
    (tmp_path / ".blaid" / "verified.json").write_text("[junk")
    assert not later(10).intact(file.path, file.sha256)
    path.unlink()
    assert not VerifiedFiles(tmp_path).intact(file.path, file.sha256)


def test_files_written_before_decimals_were_stored_as_integers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    pq.write_table(CLEAN.to_table(), path, compression="zstd", version="2.6")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_file(tmp_path, "old.parquet", digest).content_hash() == CLEAN.content_hash()
