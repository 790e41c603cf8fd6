"""The database as others see it: stamp, schema, what it refuses."""

from __future__ import annotations

from sqlalchemy import text

from blaid_pipelines.store.database import Store


def test_seed_queries_run_word_for_word(store: Store) -> None:
    with store.session() as session:
        assert session.execute(text(
            "SELECT id, bot_id, job_type, status, trace_id, created_at, started_at, completed_at\n"
            "FROM bot_jobs\nORDER BY created_at DESC\nLIMIT 50;"
        )).all() == []  # fmt: skip
        assert session.execute(text(
            "SELECT created_at, trace_id, bot_id, provider, symbol, bar_count, latency_ms, success, error_code\n"
            "FROM market_data_requests\nORDER BY created_at DESC\nLIMIT 50;"
        )).all() == []  # fmt: skip
