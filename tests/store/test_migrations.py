"""The history of the schema: equal to the mappings, reversible, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Engine, create_engine, text
from sqlalchemy.exc import IntegrityError

import blaid_pipelines.store.migrations.versions as versions
from blaid_pipelines.store import migrate
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import SCHEMA, Base
from tests.store.rows import counts, fill


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database at the head, without the stamp's protection of a Store."""
    made = create_engine(database_url)
    yield made
    made.dispose()


def test_migrations_make_exactly_the_mapped_tables(engine: Engine) -> None:
    def ours(name: str | None, kind: str, _: object) -> bool:
        return kind != "schema" or name == SCHEMA

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": ours,
                "compare_type": True,
                "compare_server_default": True,
                "version_table_schema": SCHEMA,
            },
        )
        assert compare_metadata(context, Base.metadata) == []


def test_check_constraints_are_those_of_the_mappings(engine: Engine) -> None:
    wanted = {
        (table.name, str(constraint.name))
        for table in Base.metadata.sorted_tables
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT c.relname, k.conname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid "
                "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'blaid' AND k.contype = 'c'"
            )
        ).all()
    assert {(table, name) for table, name in found} == wanted


def test_every_migration_says_what_it_does_to_data() -> None:
    modules = sorted(Path(versions.__file__).parent.glob("0*.py"))
    assert [module.name[:4] for module in modules] == sorted(migrate.known_revisions())
    for module in modules:
        docstring = module.read_text().split('"""')[1]
        assert "Data safety: " in docstring, module.name
        assert "Why: " in docstring, module.name


def test_0001_downgrade_with_rows_in_every_table(engine: Engine) -> None:
    with engine.begin() as connection:
        migrate.downgrade(connection, "0001")
        fill(connection)
        assert set(counts(connection).values()) == {1}
    with engine.begin() as connection:
        migrate.downgrade(connection, "base")
        assert counts(connection) == {}
        left = connection.execute(
            text("SELECT proname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE n.nspname = 'blaid'")
        )
        assert left.all() == []
    with engine.begin() as connection:
        migrate.upgrade(connection)
        assert migrate.schema_problems(connection) == []


def test_0002_downgrade_removes_its_instruments_and_nothing_else(engine: Engine) -> None:
    with engine.begin() as connection:
        before = counts(connection)
        fill(connection)  # instrument TST and rows that cite it
        migrate.downgrade(connection, "0001")
        assert connection.execute(text("SELECT symbol FROM blaid.instruments")).scalars().all() == ["TST"]
        assert counts(connection)["bots"] == 1
        migrate.upgrade(connection)
        after = counts(connection)
    assert after["instruments"] == before["instruments"] + 1
    assert after["instrument_costs"] == before["instrument_costs"] + 1


def test_0002_downgrade_is_refused_while_a_bot_cites_an_instrument(engine: Engine) -> None:
    with engine.begin() as connection:
        fill(connection, bots={"instrument": "MES"})
    with engine.connect() as connection:
        before = counts(connection)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        migrate.downgrade(connection, "0001")
    with engine.connect() as connection:
        assert migrate.current_revisions(connection) == [migrate.head_revision()]
        assert counts(connection) == before


def test_0003_downgrade_removes_its_tables_and_nothing_else(engine: Engine) -> None:
    with engine.begin() as connection:
        fill(connection)
        before = counts(connection)
        migrate.downgrade(connection, "0002")
        left = counts(connection)
        migrate.upgrade(connection)
        assert migrate.schema_problems(connection) == []
    gone = {"contract_definitions", "contract_days", "reconciliations", "lake_removals"}
    assert set(before) - set(left) == gone
    assert left == {name: count for name, count in before.items() if name not in gone}


def test_failed_migration_leaves_nothing_behind(engine: Engine) -> None:
    with engine.begin() as connection:
        migrate.downgrade(connection, "base")
        # the view's name is taken: the migration fails near its end
        connection.execute(text("CREATE TABLE blaid.market_data_requests (id int)"))
    with pytest.raises(Exception, match="market_data_requests"), engine.begin() as connection:
        migrate.upgrade(connection)
    with engine.connect() as connection:
        assert counts(connection) == {}
        assert migrate.current_revisions(connection) == []


def test_migrations_run_from_any_folder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with store.engine.begin() as connection:
        migrate.upgrade(connection)
        assert migrate.schema_problems(connection) == []
