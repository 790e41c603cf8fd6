"""Ingest: files become snapshots with true times and prices; what is simulated stays so; what is unclear is refused."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select

from blaid_pipelines.market.bars import MINUTE_NS, MISSING, MISSING_VOLUME, NOT_FINITE, Bars, to_ns
from blaid_pipelines.market.gate.quality import judge
from blaid_pipelines.market.intake.files import read_bar_file
from blaid_pipelines.market.intake.ingest import IngestRequest, ingest, natural_end
from blaid_pipelines.market.lake.files import write_segment
from blaid_pipelines.market.lake.snapshots import load_bars, require_pass, resolve_snapshot
from blaid_pipelines.market.purchase.pull import PullRequest, pull
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.reasons import BlaidError, InvalidRequest, ReasonCode, Refused, StopAndFix
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest, Snapshot
from tests.market.helpers import EURO_BARS, EURO_CSV, THRESHOLDS, clean_bars, write_csv
from tests.market.test_pull import PLENTY
from tests.sandbox.fixtures import StartGateway

CONTEXT = CallContext(trace_id="c" * 32, stage="LAB")
SHORT = (datetime(2024, 2, 5, 14, 30, tzinfo=UTC), datetime(2024, 2, 5, 15, 30, tzinfo=UTC))
BARS = clean_bars(*SHORT)
SESSION_CLOSE = datetime(2024, 2, 5, 22, tzinfo=UTC)
HEADER = "timestamp,open,high,low,close,volume\n"
ROW = "2024-02-05 14:30:00,5000,5001,4999.75,5000.25,7\n"


def take(store: Store, settings: Settings, *files: Path, **values: Any) -> Snapshot:
    request = IngestRequest(files, **{"symbol": "MESH4", "stamp": "open", "tz": "UTC", **values})
    return ingest(store, settings, CONTEXT, request).snapshot


def read(path: Path, text: str | bytes, symbol: str = "MESH4", stamp: str = "open", tz: str = "UTC") -> Bars:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_bar_file(path, symbol, stamp, tz, "ohlcv-1m").bars


def test_every_format_gives_the_same_content(store: Store, settings: Settings, tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "bars.csv", BARS)
    packed = tmp_path / "bars.csv.gz"
    packed.write_bytes(gzip.compress(csv.read_bytes()))
    closes = write_csv(tmp_path / "closes.csv", BARS, stamp_shift_ns=MINUTE_NS)
    named = write_csv(tmp_path / "named.csv", BARS, contract_column=True)
    chicago = write_csv(tmp_path / "chicago.csv", BARS, stamp_shift_ns=-6 * 60 * MINUTE_NS)
    floats = tmp_path / "floats.parquet"
    pq.write_table(pacsv.read_csv(csv), floats)
    own = tmp_path / "own.parquet"
    pq.write_table(BARS.to_table(), own)
    snapshots = [
        take(store, settings, csv),
        take(store, settings, packed),
        take(store, settings, closes, stamp="close"),
        take(store, settings, named),
        take(store, settings, chicago, tz="America/Chicago"),
        take(store, settings, floats),
        take(store, settings, own),
    ]
    assert {snapshot.content_hash for snapshot in snapshots} == {BARS.content_hash()}
    assert len({snapshot.snapshot_id for snapshot in snapshots}) == len(snapshots), "each has its own provenance"
    assert not any(snapshot.simulated for snapshot in snapshots)
    assert snapshots[0].dataset == "FILE"
    assert (snapshots[0].first_ts, snapshots[0].range_end) == (SHORT[0], SESSION_CLOSE)


def test_the_same_files_again_are_the_same_snapshot(store: Store, settings: Settings, tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "bars.csv", BARS)
    assert take(store, settings, csv).snapshot_id == take(store, settings, csv).snapshot_id
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(LakeSegment)) == 1
        assert session.scalar(select(func.count()).select_from(Snapshot)) == 1
        assert session.scalar(select(func.count()).select_from(ProviderRequest)) == 0


def test_bots_read_what_was_ingested_last(store: Store, settings: Settings, tmp_path: Path) -> None:
    whole, part = write_csv(tmp_path / "a.csv", BARS), write_csv(tmp_path / "b.csv", BARS.take(slice(0, 30)))
    for path in (whole, part, whole):
        taken = take(store, settings, path)
        assert resolve_snapshot(store, "MES", "MESH4", "ohlcv-1m").snapshot_id == taken.snapshot_id


def test_several_files_are_one_series(store: Store, settings: Settings, tmp_path: Path) -> None:
    first = write_csv(tmp_path / "2.csv", BARS.take(slice(30, None)))
    second = write_csv(tmp_path / "1.csv", BARS.take(slice(0, 30)))
    assert take(store, settings, first, second).content_hash == BARS.content_hash()


def test_an_interruption_after_the_files_leaves_no_snapshot(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    def write_then_end(*arguments: object) -> None:
        write_segment(*arguments)  # type: ignore[arg-type]
        raise PowerCut

    csv = write_csv(tmp_path / "bars.csv", BARS)
    with monkeypatch.context() as patched:
        patched.setattr("blaid_pipelines.market.intake.ingest.write_segment", write_then_end)
        with pytest.raises(PowerCut):
            take(store, settings, csv)
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(LakeSegment)) == 0
        assert session.scalar(select(func.count()).select_from(Snapshot)) == 0
    assert take(store, settings, csv).content_hash == BARS.content_hash()


def test_what_a_file_leaves_out_reaches_the_gate(tmp_path: Path) -> None:
    text = HEADER + (
        "2024-02-05 14:30:00,,NaN,inf,1e3,\n2024-02-05T14:31:00Z,1,1,1,1.0000000001,-1\n"
        "2024-02-05 14:32:00+00:00,1,1,1,2000000000,1.5\n"
    ).replace("T14:31:00Z", " 14:31:00").replace("+00:00", "")
    bars = read(tmp_path / "holes.csv", text)
    assert bars.open.tolist()[0] == MISSING
    assert (bars.high.tolist()[0], bars.low.tolist()[0]) == (NOT_FINITE, NOT_FINITE)
    assert bars.close.tolist() == [1000 * 10**9, 10**9, NOT_FINITE]
    assert bars.volume.tolist() == [MISSING_VOLUME, -2, MISSING_VOLUME]


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("empty.csv", "", ReasonCode.FILE_UNREADABLE),
        ("header.csv", HEADER, ReasonCode.FILE_UNREADABLE),
        ("ragged.csv", HEADER + "2024-02-05 14:30:00,1\n", ReasonCode.FILE_UNREADABLE),
        ("words.csv", HEADER + ROW.replace("5001", "high"), ReasonCode.FILE_UNREADABLE),
        ("nocolumn.csv", "timestamp,open,high,low,close\n2024-02-05 14:30:00,1,1,1,1\n", ReasonCode.FIELD_MISSING),
        ("notime.csv", "open,high,low,close,volume\n1,1,1,1,1\n", ReasonCode.FIELD_MISSING),
        ("blanktime.csv", HEADER + ROW + ",1,1,1,1,1\n", ReasonCode.FIELD_MISSING),
        ("badtime.csv", HEADER + ROW.replace("2024-02-05", "5th of May"), ReasonCode.FILE_UNREADABLE),
        ("mixed.csv", HEADER + ROW + ROW.replace("14:30:00", "14:31:00+02:00"), ReasonCode.FILE_UNREADABLE),
        ("bytes.parquet", "not parquet", ReasonCode.FILE_UNREADABLE),
        ("old.dbz", "not dbz", ReasonCode.FILE_UNREADABLE),
        ("sheet.xlsx", "x", ReasonCode.FORMAT_UNSUPPORTED),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path: Path, name: str, text: str, code: ReasonCode) -> None:
    with pytest.raises(StopAndFix) as caught:
        read(tmp_path / name, text)
    assert caught.value.reason.code is code
    assert caught.value.reason.numbers["file"] == name


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StopAndFix) as caught:
        read_bar_file(tmp_path / "none.csv", "MESH4", "open", "UTC", "ohlcv-1m")
    assert caught.value.reason.code is ReasonCode.FILE_UNREADABLE


@pytest.mark.parametrize(("local", "fails"), [("2024-11-03 01:30:00", True), ("2024-03-10 02:30:00", True)])
def test_local_times_that_are_not_one_moment_are_refused(tmp_path: Path, local: str, fails: bool) -> None:
    text = HEADER + ROW.replace("2024-02-05 14:30:00", local)
    with pytest.raises(StopAndFix) as caught:
        read(tmp_path / "dst.csv", text, tz="America/Chicago")
    assert fails
    assert caught.value.reason.code is ReasonCode.TIME_INVALID
    assert len(read(tmp_path / "utc.csv", text)) == 1


def test_times_with_a_zone_need_none_and_whole_numbers_are_nanoseconds(tmp_path: Path) -> None:
    zoned = read(tmp_path / "zoned.csv", HEADER + ROW.replace("14:30:00", "08:30:00-06:00"), tz="Asia/Tokyo")
    assert zoned.ts_open.tolist() == [to_ns(SHORT[0])]
    columns = {name: pa.array([1.0]) for name in ("open", "high", "low", "close")} | {"volume": pa.array([1])}
    for stamp, good in ((to_ns(SHORT[0]), True), (to_ns(SHORT[0]) // 10**9, False)):
        path = tmp_path / f"{stamp}.parquet"
        pq.write_table(pa.table({"ts_event": pa.array([stamp]), **columns}), path)
        if good:
            assert read_bar_file(path, "MESH4", "open", "UTC", "ohlcv-1m").bars.ts_open.tolist() == [stamp]
        else:
            with pytest.raises(InvalidRequest, match="could count seconds"):
                read_bar_file(path, "MESH4", "open", "UTC", "ohlcv-1m")


def test_a_continuous_series_needs_the_contract_of_each_bar(store: Store, settings: Settings, tmp_path: Path) -> None:
    plain, named = write_csv(tmp_path / "a.csv", BARS), write_csv(tmp_path / "b.csv", BARS, contract_column=True)
    with pytest.raises(StopAndFix) as caught:
        take(store, settings, plain, symbol="MES.c.0")
    assert caught.value.reason.code is ReasonCode.FIELD_MISSING
    assert take(store, settings, named, symbol="MES.c.0").contracts == ["MESH4"]


@pytest.mark.parametrize(
    "values",
    [
        {"symbol": "MESM4"},  # the file's contract column says MESH4
        {"symbol": "ESH4"},
        {"symbol": "MES"},
        {"symbol": "MES.FUT"},
        {"symbol": "HOH4"},
        {"stamp": "middle"},
        {"tz": "Mars/Olympus"},
        {"schema": "trades"},
    ],
    ids=str,
)
def test_requests_that_contradict_the_file_are_refused(
    store: Store, settings: Settings, tmp_path: Path, values: dict[str, str]
) -> None:
    path = write_csv(tmp_path / "bars.csv", BARS, contract_column=True)
    with pytest.raises(InvalidRequest):
        take(store, settings, path, **values)
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Snapshot)) == 0
    assert not list(settings.lake.rglob("*.parquet"))


def test_no_file_and_a_file_twice_are_refused(store: Store, settings: Settings, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", BARS)
    for files in ((), (path, path)):
        with pytest.raises(InvalidRequest):
            take(store, settings, *files)


def test_overlapping_files_are_duplicates_that_the_gate_sees(store: Store, settings: Settings, tmp_path: Path) -> None:
    bars = clean_bars()
    whole, part = write_csv(tmp_path / "a.csv", bars), write_csv(tmp_path / "b.csv", bars.take(slice(10, 20)))
    snapshot = take(store, settings, whole, part)
    verdict = judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p", trace_id="c" * 32)
    assert [reason["code"] for reason in verdict.reasons] == ["DUPLICATE_KEY"]


def test_simulated_bars_stay_simulated_when_they_come_back_as_files(
    gateway: StartGateway, store: Store, tmp_path: Path
) -> None:
    settings = gateway().settings
    request = PullRequest("MES.c.0", datetime(2024, 3, 12, tzinfo=UTC), datetime(2024, 3, 14, tzinfo=UTC))
    recorder = Recorder(store, wire_log_path(settings))
    pulled = pull(store, settings, recorder, PLENTY, CONTEXT, request).snapshot
    bars = load_bars(store, settings.lake, pulled)

    copy = tmp_path / "copy.parquet"
    copy.write_bytes((settings.lake / pulled.files[0]["path"]).read_bytes())
    stripped = tmp_path / "stripped.parquet"
    pq.write_table(bars.to_table(), stripped)
    one_day = write_csv(
        tmp_path / "day.csv", bars.slice(to_ns(datetime(2024, 3, 13, tzinfo=UTC)), 2**62), contract_column=True
    )
    honest = write_csv(tmp_path / "honest.csv", BARS, contract_column=True)
    for path, simulated in ((copy, True), (stripped, True), (one_day, True), (honest, False)):
        snapshot = take(store, settings, path, symbol="MES.c.0")
        assert snapshot.simulated is simulated, path.name
        assert snapshot.snapshot_id != pulled.snapshot_id
    assert take(store, settings, stripped, symbol="MES.c.0").content_hash == pulled.content_hash


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2024, 2, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("end", "named", "stale"),
    [
        (at(7, 22), {}, False),  # the close of a session
        (at(7, 21, 40), {}, False),  # the last minutes of a session without a trade
        (at(7, 0), {}, False),  # the end of a UTC day, in the middle of a session
        (at(6, 23, 45), {}, False),
        (at(7, 15), {}, True),  # the middle of a session
        (at(7, 21, 29), {}, True),
        (at(6, 23, 20), {}, True),
        (at(7, 15), {"end": at(7, 15)}, False),  # as named
        (at(7, 22), {"end": at(8, 4)}, True),
    ],
    ids=str,
)
def test_a_file_cut_in_the_middle_of_a_session_is_stale(
    store: Store, settings: Settings, tmp_path: Path, end: datetime, named: dict[str, datetime], stale: bool
) -> None:
    path = write_csv(tmp_path / "bars.csv", clean_bars(at(4, 23), end))
    snapshot = take(store, settings, path, **named)
    verdict = judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p", trace_id="c" * 32)
    assert [reason["code"] for reason in verdict.reasons if reason["code"] != "TOO_MUCH_MISSING"] == (
        ["STALE_DATA"] if stale else []
    )


@pytest.mark.parametrize(
    "named",
    [
        {"end": SHORT[1] - timedelta(minutes=1)},
        {"start": SHORT[0] + timedelta(minutes=1)},
        {"end": datetime(2024, 3, 1)},  # noqa: DTZ001 - that is the point
    ],
    ids=str,
)
def test_a_named_range_must_hold_the_bars(
    store: Store, settings: Settings, tmp_path: Path, named: dict[str, datetime]
) -> None:
    with pytest.raises(InvalidRequest):
        take(store, settings, write_csv(tmp_path / "bars.csv", BARS), **named)


def test_longer_bars_end_with_their_day() -> None:
    day_ns, hour_ns = 24 * 60 * MINUTE_NS, 60 * MINUTE_NS
    calendar = "CME Globex Equity"
    assert natural_end(calendar, to_ns(at(6, 0)), day_ns) == to_ns(at(7, 0))
    assert natural_end(calendar, to_ns(at(6, 21)), hour_ns) == to_ns(at(6, 22))
    assert natural_end(calendar, to_ns(at(10, 12)), MINUTE_NS) == to_ns(at(11, 0)), "a bar on a Saturday"


@pytest.mark.real_data
def test_the_real_euro_bars_pass_the_gate(store: Store, settings: Settings, real_data: Path) -> None:
    snapshot = take(store, settings, real_data / EURO_CSV, symbol="6EH4", stamp="close")
    assert (snapshot.bar_count, snapshot.instrument, snapshot.contracts) == (EURO_BARS, "6E", ["6EH4"])
    assert snapshot.first_ts == datetime(2024, 1, 1, 23, 0, tzinfo=UTC)
    assert snapshot.last_ts == datetime(2024, 1, 31, 23, 58, tzinfo=UTC)
    assert snapshot.range_end == datetime(2024, 2, 1, tzinfo=UTC), "cut by month, two minutes after its last bar"
    verdict = judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p", trace_id="c" * 32)
    assert (verdict.status, verdict.reasons) == ("PASS", [])
    assert require_pass(store, snapshot).id == verdict.id


@pytest.mark.real_data
def test_the_real_euro_bars_with_the_wrong_stamp_or_zone_fail(
    store: Store, settings: Settings, real_data: Path
) -> None:
    for values in ({"stamp": "open"}, {"stamp": "close", "tz": "America/Chicago"}):
        snapshot = take(store, settings, real_data / EURO_CSV, symbol="6EH4", **values)
        verdict = judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p", trace_id="c" * 32)
        assert "OUTSIDE_SESSION" in [reason["code"] for reason in verdict.reasons]
        with pytest.raises(Refused):
            require_pass(store, snapshot)


@pytest.mark.real_data
def test_the_real_dbn_file_has_its_true_prices(store: Store, settings: Settings, real_data: Path) -> None:
    path = real_data / "dbn_client_tests" / "GLBX.MDP3" / "test_data.ohlcv-1m.dbn.zst"
    snapshot = take(store, settings, path, symbol="ESH1")
    bars = load_bars(store, settings.lake, snapshot)
    assert snapshot.dataset == "GLBX.MDP3"
    assert snapshot.contracts == ["ESH1"]
    assert [price / 10**9 for price in (bars.open[0], bars.high[0], bars.low[0], bars.close[0])] == [
        3702.75,
        3704.75,
        3702.5,
        3704.75,
    ]
    assert bars.volume[0] == 306
    assert snapshot.first_ts == datetime(2020, 12, 28, tzinfo=UTC)
    verdict = judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p", trace_id="c" * 32)
    codes = ["BAR_COUNT_TOO_LOW", "TOO_MUCH_MISSING", "STALE_DATA"]
    assert [reason["code"] for reason in verdict.reasons] == codes


@pytest.mark.real_data
def test_the_hundredfold_codec_file_is_caught_by_the_scale_check(
    store: Store, settings: Settings, real_data: Path
) -> None:
    path = real_data / "dbn_codec_tests" / "test_data.ohlcv-1m.v3.dbn.zst"
    snapshot = take(store, settings, path, symbol="ESH1", end=datetime(2020, 12, 28, 13, 2, tzinfo=UTC))
    few = THRESHOLDS.model_copy(update={"min_bars": 1})
    verdict = judge(store, settings.lake, snapshot, few, policy_hash="p", trace_id="c" * 32)
    assert [reason["code"] for reason in verdict.reasons] == ["PRICE_SCALE"]
    assert verdict.reasons[0]["numbers"]["plausible_range"] == ["300.000000000", "30000.000000000"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("path", "values", "code"),
    [
        ("dbn_codec_tests/test_data.ohlcv-1d.v3.dbn.zst", {"schema": "ohlcv-1d"}, ReasonCode.DATA_UNAVAILABLE),
        ("dbn_codec_tests/test_data.ohlcv-1m.dbz", {}, ReasonCode.FORMAT_UNSUPPORTED),
        ("dbn_codec_tests/test_data.trades.v3.dbn.zst", {}, ReasonCode.INVALID_REQUEST),
        ("dbn_client_tests/GLBX.MDP3/test_data.ohlcv-1m.dbn.zst", {"stamp": "close"}, ReasonCode.INVALID_REQUEST),
        ("dbn_client_tests/GLBX.MDP3/test_data.ohlcv-1m.dbn.zst", {"symbol": "ESM1"}, ReasonCode.INVALID_REQUEST),
        ("dbn_client_tests/GLBX.MDP3/test_data.ohlcv-1h.dbn.zst", {}, ReasonCode.INVALID_REQUEST),
    ],
)
def test_real_dbn_files_that_do_not_fit_are_refused(
    store: Store, settings: Settings, real_data: Path, path: str, values: dict[str, str], code: ReasonCode
) -> None:
    with pytest.raises(BlaidError) as caught:
        take(store, settings, real_data / path, **{"symbol": "ESH1", **values})
    assert caught.value.reason.code is code


def test_times_without_a_zone_are_not_guessed(store: Store, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "naive.csv"
    path.write_text("timestamp,open,high,low,close,volume\n2024-02-06 15:00:00,5000,5000,5000,5000,1\n")
    request = IngestRequest([path], "MESH4", "open")
    with pytest.raises(InvalidRequest) as refused:
        ingest(store, settings, CallContext("c" * 32), request)
    assert "--tz" in refused.value.reason.suggested_fix


def test_a_range_that_ends_in_the_future_is_refused(store: Store, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("ts_open,open,high,low,close,volume\n2024-02-05T00:00Z,5000,5000,5000,5000,1\n")
    request = IngestRequest([path], "MESH4", "open", end=datetime(2090, 12, 31, tzinfo=UTC))
    with pytest.raises(InvalidRequest, match="ends in the future"):
        ingest(store, settings, CONTEXT, request)
    assert not settings.lake.exists() or not list(settings.lake.rglob("*.parquet"))


def test_a_stitched_series_that_stops_before_the_bars_it_is_made_of_is_stale(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    """MESM4 trades in the first session only: from the fifth on nothing decides which contract is second."""
    start, end = datetime(2024, 2, 4, 23, tzinfo=UTC), datetime(2024, 2, 9, 22, tzinfo=UTC)
    lead, second = clean_bars(start, end), clean_bars(start, start + timedelta(hours=23), "MESM4", seed=8)
    path = write_csv(tmp_path / "both.csv", Bars.concat([lead, second]), contract_column=True)
    snapshot = take(store, settings, path, symbol="MES.c.1")
    assert snapshot.provenance["sessions_left_out"] == [20240209]
    assert (snapshot.last_ts, snapshot.range_end) == (start + timedelta(hours=23, minutes=-1), end)
    verdict = judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p", trace_id="c" * 32)
    assert ReasonCode.STALE_DATA in {reason["code"] for reason in verdict.reasons}
