"""Comparison of a recorded result with a fresh one: equal bit for bit, or a list of what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from blaid_pipelines.backtest.engine import BacktestResult
from blaid_pipelines.backtest.ledger import TRADE_SCHEMA

MOST_SHOWN = 20


def compare(
    recorded_hash: str,
    recorded_trades: pa.Table,
    fresh: BacktestResult,
    *,
    recorded_metrics: Mapping[str, Any] | None = None,
    recorded_engine_version: str | None = None,
) -> list[str]:
    """Differences in plain words, empty when the result reproduced; at most :data:`MOST_SHOWN` trade values are listed.

    ``recorded_trades`` may carry more columns than ``TRADE_SCHEMA``; those are not compared. The hash covers the
    specification too, so equal trades with another hash are a difference.
    """
    differences = []
    if recorded_engine_version is not None and recorded_engine_version != fresh.engine_version:
        differences.append(f"engine version: recorded {recorded_engine_version}, now {fresh.engine_version}")
    differences += _trade_differences(recorded_trades, fresh.trades)
    if recorded_metrics is not None:
        now = fresh.metrics.as_json()
        for name in sorted(set(now) | set(recorded_metrics)):
            before, after = recorded_metrics.get(name, "absent"), now.get(name, "absent")
            if before != after:
                differences.append(f"metric {name}: recorded {before}, now {after}")
    if recorded_hash != fresh.result_hash:
        differences.append(f"result hash: recorded {recorded_hash}, now {fresh.result_hash}")
    return differences


def _trade_differences(recorded: pa.Table, fresh: pa.Table) -> list[str]:
    absent = [name for name in TRADE_SCHEMA.names if name not in recorded.column_names]
    if absent:
        return [f"trades: the recorded file lacks {', '.join(absent)}"]
    differences = []
    if len(recorded) != len(fresh):
        differences.append(f"trades: recorded {len(recorded)}, now {len(fresh)}")
    shared = min(len(recorded), len(fresh))
    for field in TRADE_SCHEMA:
        # a partitioned or dictionary-coded file gives other types for the same values
        before = recorded.column(field.name).slice(0, shared).cast(field.type).combine_chunks()
        after = fresh.column(field.name).slice(0, shared).combine_chunks()
        if before.equals(after):
            continue
        for row, (one, two) in enumerate(zip(before, after, strict=True)):
            if not one.equals(two):
                differences.append(f"trade {row}, {field.name}: recorded {_shown(one)}, now {_shown(two)}")
            if len(differences) >= MOST_SHOWN:
                return [*differences, "trades: more differences are not listed"]
    return differences


def _shown(value: pa.Scalar) -> str:
    return str(value.cast(pa.int64()).as_py() if pa.types.is_timestamp(value.type) else value.as_py())
