"""What Massive's bars hold when all goes well: the exact prices, page after page, and the official client's reading."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pytest

from blaid_pipelines.market import bars as market_bars
from blaid_pipelines.providers.massive import replies
from blaid_pipelines.providers.massive.client import AGGS_ENDPOINT
from blaid_pipelines.providers.registry import is_configured
from blaid_pipelines.reasons import BlaidError, ReasonCode
from blaid_pipelines.sandbox.gateway import Fault
from blaid_pipelines.settings import Settings, load_settings
from tests.providers.conftest import World

START, END = datetime(2024, 3, 11, tzinfo=UTC), datetime(2024, 3, 15, tzinfo=UTC)
COLUMNS = ("ts_open", "open", "high", "low", "close", "volume")


def test_the_bars_of_both_protocols_are_the_same(world: World) -> None:
    theirs, _ = world.client().get_bars("GLBX.MDP3", "MESH4", "ohlcv-1m", START, END)
    ours, request_ids = world.massive().get_bars("MESH4", "ohlcv-1m", START, END)
    for name in COLUMNS:
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert (ours.delayed, ours.simulated, len(request_ids)) == (False, True, 1)
    row = world.rows()[-1]
    assert (row.bar_count, row.start_ts, row.end_ts, row.id) == (len(ours), START, END, request_ids[0])


def test_hours(world: World) -> None:
    theirs, _ = world.client().get_bars("GLBX.MDP3", "MESH4", "ohlcv-1h", START, END)
    ours, _ = world.massive().get_bars("MESH4", "ohlcv-1h", START, END)
    for name in COLUMNS:
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


@pytest.mark.parametrize("page_limit", [1000, 5520, 5521, 50_000])
def test_pages_make_one_series_and_each_has_its_row(page_limit: int, world: World) -> None:
    whole, _ = world.massive().get_bars("MESH4", "ohlcv-1m", START, END)
    before = len(world.rows())
    paged, request_ids = world.massive(page_limit=page_limit).get_bars("MESH4", "ohlcv-1m", START, END)
    pages = -(-len(whole) // page_limit)
    assert np.array_equal(paged.ts_open, whole.ts_open)
    assert np.array_equal(paged.close, whole.close)
    rows = world.rows()[before:]
    assert [row.id for row in rows] == request_ids
    assert len(rows) == pages
    assert sum(row.bar_count or 0 for row in rows) == len(whole)
    world.assert_all_counted(1 + pages)


def test_a_page_that_fails_in_the_middle_is_taken_again_alone(world: World) -> None:
    whole, _ = world.massive().get_bars("MESH4", "ohlcv-1m", START, END)
    massive = world.massive(page_limit=2000, sleep=lambda _: world.gateway.clear_faults())
    first = True

    def fail_once(item: object) -> None:
        nonlocal first
        if first:
            first = False
            world.faults(Fault(AGGS_ENDPOINT, "reset"))

    world.gateway._on_request = fail_once  # the second request meets the fault
    try:
        paged, _ = massive.get_bars("MESH4", "ohlcv-1m", START, END)
    finally:
        world.gateway._on_request = None
    assert np.array_equal(paged.ts_open, whole.ts_open)


def loop(url: str, stamp: int) -> str:
    row = {"ticker": "MESH4", "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1, "window_start": stamp}
    return json.dumps({"status": "OK", "request_id": "r", "results": [row], "next_url": url})


def test_pages_that_go_round_in_a_circle_end(world: World) -> None:
    url = f"{world.settings.massive_url}/futures/v1/aggs/MESH4?cursor=again"
    world.faults(*(Fault(body=loop(url, (1710115200 + 60 * n) * 10**9)) for n in range(5)))
    with pytest.raises(BlaidError) as caught:
        world.massive().get_bars("MESH4", "ohlcv-1m", START, END)
    assert caught.value.reason.code is ReasonCode.BAD_RESPONSE
    world.assert_all_counted(2)


def test_a_page_that_repeats_bars_is_refused(world: World) -> None:
    url = f"{world.settings.massive_url}/futures/v1/aggs/MESH4?cursor="
    world.faults(*(Fault(body=loop(f"{url}{n}", 1710115200 * 10**9)) for n in range(5)))
    with pytest.raises(BlaidError) as caught:
        world.massive().get_bars("MESH4", "ohlcv-1m", START, END)
    assert caught.value.reason.code is ReasonCode.BAD_RESPONSE
    world.assert_all_counted(2)


def test_prices_are_the_decimals_that_are_written(world: World) -> None:
    row = (
        '{"ticker":"6EH4","open":1.10765,"high":1.1076500000000001,"low":-37.63,"close":123456789.123456789,'
        '"volume":12.0,"window_start":1710115200000000000}'
    )
    empty = '{"ticker":"6EH4","open":1e9,"close":null,"window_start":1710115260000000000}'
    world.faults(Fault(body=f'{{"status":"DELAYED","request_id":"r","results":[{row},{empty}]}}'))
    bars, _ = world.massive().get_bars("6EH4", "ohlcv-1m", START, END)
    assert bars.delayed
    assert (bars.open[0], bars.high[0], bars.low[0]) == (1_107_650_000, 1_107_650_000, -37_630_000_000)
    assert (bars.close[0], bars.volume[0]) == (123_456_789_123_456_789, 12)
    assert (bars.open[1], bars.high[1], bars.close[1]) == (
        market_bars.NOT_FINITE,
        market_bars.MISSING,
        market_bars.MISSING,
    )
    assert bars.volume[1] == market_bars.MISSING_VOLUME
    assert replies.NOT_A_PRICE == market_bars.NOT_FINITE


def test_nothing_is_no_error(world: World) -> None:
    saturday = datetime(2024, 3, 16, 1, tzinfo=UTC), datetime(2024, 3, 16, 9, tzinfo=UTC)
    assert len(world.massive().get_bars("MESM4", "ohlcv-1m", *saturday)[0]) == 0
    assert len(world.massive().get_bars("ESZ9", "ohlcv-1m", START, END)[0]) == 0
    world.faults(Fault(body='{"status":"OK","request_id":"r"}'))
    assert len(world.massive().get_bars("MESM4", "ohlcv-1m", START, END)[0]) == 0


def test_session_bars_open_the_evening_before(world: World) -> None:
    sessions, _ = world.massive().get_session_bars("MESH4", START, END)
    assert [bar.session_end_date for bar in sessions] == [date(2024, 3, day) for day in (12, 13, 14, 15)]
    first = sessions[0]
    assert first.window_start == int(datetime(2024, 3, 11, 22, tzinfo=UTC).timestamp()) * 10**9
    minutes, _ = world.massive().get_bars("MESH4", "ohlcv-1m", START, END)
    own = (minutes.ts_open >= first.window_start) & (minutes.ts_open < sessions[1].window_start)
    assert first.volume == int(minutes.volume[own].sum())
    assert first.high == Decimal(int(minutes.high[own].max())).scaleb(-9)
    assert first.settlement_price == first.close


def test_contracts_and_market_status(world: World) -> None:
    contracts = world.massive().list_contracts("MES")
    assert [contract.ticker for contract in contracts] == ["MESH4", "MESM4"]
    assert contracts[0].last_trade_date == date(2024, 3, 15)
    assert contracts[0].trade_tick_size == Decimal("0.25")
    assert [c.ticker for c in world.massive().list_contracts("MES", date(2024, 3, 18))] == ["MESM4"]
    assert world.massive().list_contracts("ES") == []
    assert world.massive().market_status().market in {"open", "closed"}


def test_either_name_of_the_key_is_read(settings: Settings) -> None:
    for given, wanted in [
        ({"MASSIVE_API_KEY": "m" * 32}, "m" * 32),
        ({"POLYGON_API_KEY": "p" * 32}, "p" * 32),
        ({"MASSIVE_API_KEY": "m" * 32, "POLYGON_API_KEY": "p" * 32}, "m" * 32),
        ({"MASSIVE_API_KEY": "  ", "POLYGON_API_KEY": "p" * 32}, "p" * 32),
    ]:
        real = load_settings(BLAID_ENV="production", **given)
        key = real.massive_key()
        assert key is not None
        assert key.get_secret_value() == wanted
        assert is_configured("massive", real)
    assert not is_configured("massive", load_settings(BLAID_ENV="production"))
    assert not is_configured("massive", load_settings(BLAID_ENV="production", MASSIVE_API_KEY="short"))
    assert is_configured("massive", settings)  # the sandbox world has made one


# the official client reads the same answers


def test_the_official_client_reads_the_sandbox(world: World) -> None:
    massive = pytest.importorskip("massive", reason="the official Massive client is not installed (oracles)")
    key = world.settings.massive_key()
    assert key is not None
    official = massive.RESTClient(api_key=key.get_secret_value(), base=world.settings.massive_url, retries=0)
    low, high = (str(int(moment.timestamp()) * 10**9) for moment in (START, END))
    found = list(
        official.list_futures_aggregates(
            "MESH4", "1min", window_start_gte=low, window_start_lt=high, limit=1000, sort="window_start.asc"
        )
    )
    ours, _ = world.massive().get_bars("MESH4", "ohlcv-1m", START, END)
    assert [bar.window_start for bar in found] == ours.ts_open.tolist()
    assert [Decimal(str(bar.close)) for bar in found] == [Decimal(int(value)).scaleb(-9) for value in ours.close]
    assert [int(bar.volume) for bar in found] == ours.volume.tolist()
    assert {bar.ticker for bar in found} == {"MESH4"}
    sessions = list(official.list_futures_aggregates("MESH4", "1session", sort="window_start.asc"))
    assert [bar.session_end_date for bar in sessions][:2] == ["2024-03-11", "2024-03-12"]
    contracts = list(official.list_futures_contracts(product_code="MES", limit=1))
    assert [contract.ticker for contract in contracts] == ["MESH4", "MESM4"]
    assert official.get_market_status().market in {"open", "closed"}
    with pytest.raises(massive.exceptions.BadResponse, match="resolution"):
        next(official.list_futures_aggregates("MESH4", "61min"))
    stranger = massive.RESTClient(api_key="nobody", base=world.settings.massive_url, retries=0)
    with pytest.raises(massive.exceptions.BadResponse, match="Unknown API Key"):
        stranger.get_market_status()
