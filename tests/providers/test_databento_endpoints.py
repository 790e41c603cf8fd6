"""Every endpoint of the adapter through the real databento client against the gateway, and the rows it leaves."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np

from blaid_pipelines.proof.usage import check_requests
from blaid_pipelines.sandbox.synthetic import synthesise
from tests.providers.conftest import World
from tests.sandbox.fixtures import SMALL

START, END = datetime(2024, 3, 11, tzinfo=UTC), datetime(2024, 3, 20, tzinfo=UTC)
GLBX = "GLBX.MDP3"


def test_every_endpoint_answers_and_leaves_one_row(world: World) -> None:
    databento = world.client()
    assert databento.list_datasets() == [GLBX]
    assert databento.list_schemas(GLBX) == ["ohlcv-1m", "ohlcv-1h", "ohlcv-1d", "definition"]
    available = databento.get_dataset_range(GLBX)
    assert (available.start[:10], available.end[:10]) == ("2024-03-11", "2024-03-20")
    assert available.by_schema["ohlcv-1h"] == (available.start, available.end)
    count = databento.get_record_count(GLBX, "MES.c.0", "ohlcv-1m", "continuous", START, END)
    assert count == len(synthesise(SMALL))
    cost = databento.get_cost(GLBX, "MES.c.0", "ohlcv-1m", None, START, END)
    assert cost == Decimal(str(round(count * 56 / 1e9 * 70, 9)))
    resolved = databento.resolve(GLBX, ["MES.c.0"], "continuous", "instrument_id", START.date(), END.date())
    assert [part.end for part in resolved["MES.c.0"]] == [date(2024, 3, 15), date(2024, 3, 20)]
    definitions = databento.get_definitions(GLBX, "MES.c.0", START, END)
    assert [(item.raw_symbol, item.min_price_increment) for item in definitions] == [
        ("MESH4", 250_000_000),
        ("MESM4", 250_000_000),
    ]
    world.assert_all_counted(7)
    written = world.rows()
    assert [row.id for row in written] == databento.request_ids
    assert all(row.success and row.http_status == 200 and row.simulated for row in written)
    assert [row.endpoint for row in written] == [item.endpoint for item in world.gateway.received[-7:]]
    assert written[4].cost_usd == round(cost, 6)
    assert check_requests(world.store, databento.request_ids) == []


def test_bars_carry_the_contract_behind_each_and_match_what_was_served(world: World) -> None:
    databento = world.client()
    bars, request_ids = databento.get_bars(GLBX, "MES.c.0", "ohlcv-1m", START, END)
    served = synthesise(SMALL)
    for name in ("ts_open", "open", "high", "low", "close", "volume", "instrument_id"):
        np.testing.assert_array_equal(getattr(bars, name), getattr(served, name))
    assert bars.contracts == ("MESH4", "MESM4")
    roll = np.datetime64("2024-03-15").astype("datetime64[ns]").astype(np.int64)
    assert set(bars.contract[bars.ts_open < roll]) == {"MESH4"}
    assert set(bars.contract[bars.ts_open >= roll]) == {"MESM4"}
    assert bars.simulated
    # the symbol, each of its two ids, the bars
    assert [row.endpoint for row in world.rows()] == ["symbology.resolve"] * 3 + ["timeseries.get_range"]
    assert request_ids == databento.request_ids
    last = world.rows()[-1]
    assert (last.bar_count, last.symbol, last.schema) == (len(served), "MES.c.0", "ohlcv-1m")
    assert (last.start_ts, last.end_ts) == (START, END)
    assert last.response_bytes
    assert last.response_sha256
    world.assert_all_counted(4)
