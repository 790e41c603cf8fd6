"""The database as others meet it: the stamp, the schema, what is refused, what a session promises."""

from __future__ import annotations

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from blaid_pipelines.ids import new_id
from blaid_pipelines.reasons import BlaidError, DependencyDown, ReasonCode, Refused, RetryLater, StopAndFix
from blaid_pipelines.settings import Settings, load_settings
from blaid_pipelines.store import dagster_home, migrate
from blaid_pipelines.store.database import Store, dagster_database_url, dagster_environment, initialise, open_store
from blaid_pipelines.store.tables import EnvironmentStamp


def settings_of(settings: Settings, env: str) -> Settings:
    assert settings.database_url is not None
    return load_settings(
        BLAID_ENV=env, BLAID_HOME=settings.home, BLAID_DATABASE_URL=settings.database_url.get_secret_value()
    )


def code_of(settings: Settings, opener: object = open_store) -> tuple[type[BlaidError], ReasonCode]:
    with pytest.raises(BlaidError) as caught:
        opener(settings)  # type: ignore[operator]
    return type(caught.value), caught.value.reason.code


def run(store_url: str, *statements: str) -> None:
    engine = create_engine(store_url, connect_args={"options": "-csearch_path=blaid"})
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


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


@pytest.mark.parametrize("env", ["dev", "production"])
@pytest.mark.parametrize("opener", [open_store, initialise])
def test_database_of_another_world_is_refused_and_untouched(settings: Settings, env: str, opener: object) -> None:
    assert code_of(settings_of(settings, env), opener) == (Refused, ReasonCode.ENVIRONMENT_MISMATCH)
    with open_store(settings) as store, store.session() as session:
        assert session.get_one(EnvironmentStamp, 1).env == "sandbox"


def test_initialising_again_changes_nothing(settings: Settings) -> None:
    def state() -> tuple[object, ...]:
        with open_store(settings) as store, store.session() as session:
            stamp = session.get_one(EnvironmentStamp, 1)
            return (
                stamp.installation_id,
                stamp.created_at,
                settings.sandbox_key_path.read_text(),
                (settings.dagster_home / "dagster.yaml").stat().st_mtime_ns,
            )

    before = state()
    initialise(settings).close()
    assert state() == before


@pytest.mark.parametrize(
    "damage",
    [
        ["DROP SCHEMA blaid CASCADE"],
        ["UPDATE alembic_version SET version_num = '0001'"],
        ["UPDATE alembic_version SET version_num = '9999'"],
        ["DELETE FROM alembic_version"],
        ["INSERT INTO alembic_version VALUES ('0001')"],
        ["DROP TABLE bot_stage_events"],
    ],
)
def test_unfit_schema_is_refused(settings: Settings, store: Store, damage: list[str]) -> None:
    run(store.url, *damage)
    assert code_of(settings) == (StopAndFix, ReasonCode.SCHEMA_OUT_OF_DATE)


def test_lost_stamp_is_never_written_again(settings: Settings, store: Store) -> None:
    run(
        store.url,
        "ALTER TABLE environment_stamp DISABLE TRIGGER USER",
        "DELETE FROM environment_stamp",
        "ALTER TABLE environment_stamp ENABLE TRIGGER USER",
    )
    for opener in (open_store, initialise):
        assert code_of(settings_of(settings, "production"), opener) == (StopAndFix, ReasonCode.INSTALLATION_BROKEN)


def test_newer_database_is_left_alone(settings: Settings, store: Store) -> None:
    run(store.url, "UPDATE alembic_version SET version_num = '9999'")
    assert code_of(settings, initialise) == (StopAndFix, ReasonCode.SCHEMA_OUT_OF_DATE)
    with store.engine.connect() as connection:
        assert migrate.current_revisions(connection) == ["9999"]


def test_older_database_is_migrated_by_initialise(settings: Settings, store: Store) -> None:
    with store.engine.begin() as connection:
        migrate.downgrade(connection, "0001")
    assert code_of(settings) == (StopAndFix, ReasonCode.SCHEMA_OUT_OF_DATE)
    initialise(settings).close()
    open_store(settings).close()


def test_initialise_makes_the_database_and_several_may_do_it_at_once(settings: Settings, store: Store) -> None:
    name = f"fresh_{new_id().hex}"
    fresh = load_settings(
        BLAID_ENV="production",
        BLAID_HOME=settings.home / "other",
        BLAID_DATABASE_URL=store.engine.url.set(database=name).render_as_string(hide_password=False),
    )
    try:
        with ThreadPoolExecutor(3) as pool:
            for store_made in pool.map(lambda _: initialise(fresh), range(3)):
                store_made.close()
        assert not fresh.sandbox_key_path.exists()  # generated keys are for the sandbox world alone
        assert code_of(settings_of(fresh, "sandbox")) == (Refused, ReasonCode.ENVIRONMENT_MISMATCH)
    finally:
        engine = create_engine(store.engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "kind", "code"),
    [
        ("postgresql://blaid:planted@127.0.0.1:9/blaid", DependencyDown, ReasonCode.DATABASE_UNAVAILABLE),
        ("mysql://planted@127.0.0.1/blaid", StopAndFix, ReasonCode.SETTINGS_INVALID),
        ("planted", StopAndFix, ReasonCode.SETTINGS_INVALID),
        ("postgresql://blaid:planted@127.0.0.1:5432", StopAndFix, ReasonCode.SETTINGS_INVALID),
    ],
)
def test_bad_addresses(tmp_path: Path, url: str, kind: type[BlaidError], code: ReasonCode) -> None:
    settings = load_settings(BLAID_ENV="sandbox", BLAID_HOME=tmp_path, BLAID_DATABASE_URL=url)
    with pytest.raises(kind) as caught:
        open_store(settings)
    assert caught.value.reason.code is code
    assert "planted" not in str(caught.value.reason.as_dict())


def test_sandbox_key_is_private_and_has_the_right_form(settings: Settings) -> None:
    key = settings.sandbox_key_path
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().strip().startswith("db-")
    assert len(key.read_text().strip()) == 32


REQUEST = (
    "INSERT INTO provider_requests (id, trace_id, category, provider, endpoint, attempt, request_fingerprint, params, "
    "simulated) VALUES (:i, 't', 'market_data', 'p', 'e', 1, 'f', '{}', true)"
)


def test_session_commits_or_leaves_nothing(store: Store) -> None:
    with store.session() as session:
        session.execute(text(REQUEST), {"i": new_id()})

    def insert_and_fail() -> None:
        with store.session() as session:
            session.execute(text(REQUEST), {"i": new_id()})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        insert_and_fail()
    with store.session() as session:
        assert session.execute(text("SELECT count(*) FROM provider_requests")).scalar_one() == 1


def test_terminated_connection_is_a_dependency_down_and_the_next_session_works(store: Store) -> None:
    with pytest.raises(DependencyDown) as caught, store.session() as session:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert caught.value.reason.code is ReasonCode.DATABASE_UNAVAILABLE
    with store.session() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1


def test_lost_race_is_retry_later(store: Store) -> None:
    def look_then_insert(meanwhile: Callable[[], None]) -> None:
        with store.session() as session:
            session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
            session.execute(text("SELECT count(*) FROM provider_requests"))
            meanwhile()
            session.execute(text(REQUEST), {"i": new_id()})

    with pytest.raises(RetryLater):
        look_then_insert(meanwhile=lambda: look_then_insert(meanwhile=lambda: None))


def test_dagster_address_is_psycopg2_in_its_own_schema(settings: Settings) -> None:
    url = dagster_database_url(settings)
    assert url.startswith("postgresql+psycopg2://")
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT current_schema()")).scalar() == "dagster"
    engine.dispose()
    variables = dagster_environment(settings)
    assert variables["BLAID_DAGSTER_POSTGRES_URL"] == url
    assert variables["DAGSTER_HOME"] == str(settings.dagster_home)


def test_every_connection_is_in_utc(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTZ", "America/Chicago")  # overrules a connection's options

    def zones(engine: Engine) -> list[str]:
        found = []
        with engine.connect() as connection:
            for _ in range(2):
                found.append(connection.execute(text("SHOW TimeZone")).scalar_one())
                connection.rollback()
        engine.dispose()
        return found

    assert settings.database_url is not None
    assert zones(create_engine(settings.database_url.get_secret_value())) == ["America/Chicago"] * 2
    with open_store(settings) as store:
        assert zones(store.engine) == ["UTC"] * 2
    for name, value in dagster_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert zones(create_engine(dagster_database_url(settings))) == ["UTC"] * 2


def test_changed_dagster_yaml_is_kept_beside_ours(settings: Settings) -> None:
    target = settings.dagster_home / "dagster.yaml"
    target.write_text("telemetry: {enabled: true}\n")
    assert not dagster_home.is_current(settings)
    initialise(settings).close()
    assert dagster_home.is_current(settings)
    assert target.with_suffix(".yaml.previous").read_text() == "telemetry: {enabled: true}\n"


def test_deploy_shows_the_packaged_dagster_yaml() -> None:
    shown = Path(__file__).parents[2] / "deploy" / "dagster.yaml"
    assert shown.read_text() == dagster_home.TEMPLATE.read_text()


def test_store_does_not_print_its_password(store: Store) -> None:
    other = Store(store.engine.url.set(password="planted"))
    assert "planted" not in repr(other)
    other.close()
