"""Opening and initialising the database: the one way to a :class:`Store`, through the environment stamp and the schema.

A process of one world (sandbox, dev, production) is refused a database of another, whoever serves it. Queries and
rows live with the layers that own them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from blaid_pipelines.reasons import BlaidError, DependencyDown, Reason, ReasonCode, Refused, RetryLater, StopAndFix
from blaid_pipelines.settings import Environment, Settings
from blaid_pipelines.store import dagster_home, embedded, migrate
from blaid_pipelines.store.tables import SCHEMA, EnvironmentStamp

DATABASE = "blaid"
DAGSTER_SCHEMA = "dagster"
CONNECT_TIMEOUT_S = 10


class Store:
    """The database of one installation: an engine and its sessions. Thread-safe; close it, or use it with ``with``."""

    def __init__(self, url: URL, shared_home: Path | None = None) -> None:
        self.url = url.render_as_string(hide_password=False)
        self.engine: Engine = _engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        self._shared_home = shared_home

    def __repr__(self) -> str:
        return f"Store({self.engine.url!r})"  # SQLAlchemy hides the password

    def session(self) -> AbstractContextManager[Session]:
        """A session in one transaction: commits at the end, rolls back on any error.

        Raises :class:`DependencyDown` (``DATABASE_UNAVAILABLE``) when the server is gone, :class:`RetryLater` when
        the transaction lost against another one (deadlock, serialisation).
        """
        return self._session()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with database_errors(), self._sessions() as session, session.begin():
            yield session

    def close(self) -> None:
        """Close the connections; the last user of an embedded server stops it. Harmless when called again."""
        self.engine.dispose()
        if self._shared_home is not None:
            home, self._shared_home = self._shared_home, None
            embedded.unshare(home)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(settings: Settings) -> Store:
    """The store of an initialised installation; starts the embedded server when it is needed and not running.

    Raises :class:`Refused` (``ENVIRONMENT_MISMATCH``) for a database stamped for another world, :class:`StopAndFix`
    (``SCHEMA_OUT_OF_DATE``, ``INSTALLATION_BROKEN``) when it is not initialised or not at this code's revision,
    :class:`DependencyDown` when it does not answer.
    """
    store = _connect(settings, create=False)
    try:
        with database_errors(), store.engine.connect() as connection:
            _check(connection, settings)
    except BaseException:
        store.close()
        raise
    return store


def initialise(settings: Settings) -> Store:
    """Make or bring up to date everything an installation needs, and open it. Running it again changes nothing.

    Folders, server, database, schemas, migrations, environment stamp, in the sandbox world the gateway's key, and
    ``dagster.yaml``. A database of another world, or a newer one, is left as it is and refused.
    """
    for folder in (settings.home, settings.lake, settings.warehouse_dir, settings.dagster_home, settings.log_dir):
        _make_folder(folder)
    store = _connect(settings, create=True)
    try:
        with database_errors(), store.engine.begin() as connection:
            migrate.lock(connection)
            before = migrate.current_revisions(connection)
            if before:
                _check_stamp(connection, settings)
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {DAGSTER_SCHEMA}"))
            migrate.upgrade(connection)
            if not before:
                connection.execute(insert(EnvironmentStamp).values(id=1, env=settings.env.value))
            _check(connection, settings)
        _make_sandbox_key(settings)
        dagster_home.write(settings)
    except BaseException:
        store.close()
        raise
    return store


def dagster_database_url(settings: Settings) -> str:
    """Address for Dagster: the same database, schema ``dagster``, by the psycopg2 driver that it needs."""
    url = _with_options(_database_url(settings), DAGSTER_SCHEMA)
    return url.render_as_string(hide_password=False)


def dagster_environment(settings: Settings) -> dict[str, str]:
    """Environment variables for any process that opens our Dagster instance (it must also hold the store open)."""
    return dagster_home.environment(settings, dagster_database_url(settings))


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn a lost server or a lost race into the errors that say what to do; leave all others as they are."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        state = getattr(error.orig, "pgcode", None) or ""
        said = str(error.orig).strip().splitlines()
        numbers = {"sqlstate": state or None, "said": said[0] if said else type(error.orig).__name__}
        if state.startswith("40"):
            raise RetryLater(
                Reason(
                    ReasonCode.DATABASE_UNAVAILABLE,
                    "the transaction lost against another one and was rolled back",
                    "Try again.",
                    numbers,
                )
            ) from error
        raise DependencyDown(unavailable(numbers)) from error
    except DBAPIError as error:
        if error.connection_invalidated and not isinstance(error, IntegrityError):
            raise DependencyDown(unavailable({"said": str(error.orig).strip()})) from error
        raise


def unavailable(numbers: dict[str, object]) -> Reason:
    """The reason given when the database does not answer."""
    return Reason(
        ReasonCode.DATABASE_UNAVAILABLE,
        f"the database does not answer: {numbers.get('said')}",
        "Run `blaid doctor`; check the server behind BLAID_DATABASE_URL where that is set.",
        numbers,
    )


def _database_url(settings: Settings) -> URL:
    if settings.database_url is None:
        return embedded.EmbeddedServer(settings.home).url(DATABASE)
    url: URL | None = None
    with suppress(ArgumentError, ValueError):  # a port that is no number is a ValueError
        url = make_url(settings.database_url.get_secret_value())
    if url is None or url.get_backend_name() not in {"postgresql", "postgres"} or not url.database:
        raise StopAndFix(
            Reason(
                ReasonCode.SETTINGS_INVALID,
                "BLAID_DATABASE_URL is not the address of a Postgres database",
                "Set it like postgresql://user:password@host:5432/blaid, or unset it for the embedded server.",
                {"variable": "BLAID_DATABASE_URL"},
            )
        )
    return url.set(drivername="postgresql+psycopg2")


def _with_options(url: URL, search_path: str) -> URL:
    given = url.query.get("options", "")
    ours = f"-csearch_path={search_path} -cTimeZone=UTC"
    options = " ".join([*([given] if isinstance(given, str) else given), ours]).strip()
    return url.update_query_dict({"options": options})


def _engine(url: URL) -> Engine:
    engine = create_engine(
        _with_options(url, f"{SCHEMA},public"),
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=20,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "blaid"},
    )
    event.listen(engine, "connect", _use_utc)
    return engine


def _use_utc(connection: DBAPIConnection, _: object) -> None:
    """Set the time zone where PGTZ of the environment has overruled the connection's options."""
    if connection.get_parameter_status("TimeZone") == "UTC":
        return
    cursor = connection.cursor()
    cursor.execute("SET TIME ZONE 'UTC'")
    cursor.close()
    connection.commit()  # else a rollback takes it back


def _connect(settings: Settings, *, create: bool) -> Store:
    """A store whose server answers and whose database exists; nothing is checked yet."""
    url = _database_url(settings)
    if settings.database_url is not None:
        if create:
            _create_database(url)
        return Store(url)
    embedded.share(settings.home, create=create)
    try:
        if create:
            _create_database(url)
        return Store(url, settings.home)
    except BaseException:
        embedded.unshare(settings.home)
        raise


def _create_database(url: URL) -> None:
    """Create the database when the server has none of that name."""
    engine = create_engine(url, connect_args={"connect_timeout": CONNECT_TIMEOUT_S})
    try:
        with database_errors():
            try:
                engine.connect().close()
                return
            except OperationalError as error:
                if f'database "{url.database}" does not exist' not in str(error.orig):
                    raise
            maintenance = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
            try:
                with maintenance.connect() as connection:
                    quoted = connection.dialect.identifier_preparer.quote_identifier(str(url.database))
                    connection.execute(text(f"CREATE DATABASE {quoted} TEMPLATE template0 ENCODING 'UTF8'"))
            except DBAPIError as error:
                if getattr(error.orig, "pgcode", None) not in {
                    "42P04",
                    "23505",
                }:  # another process created it meanwhile
                    raise
            finally:
                maintenance.dispose()
    finally:
        engine.dispose()


def _check(connection: Connection, settings: Settings) -> None:
    """Refuse the database unless it is initialised, of this world, and at this code's revision, in that order."""
    _check_stamp(connection, settings)
    problems = migrate.schema_problems(connection)
    if problems:
        raise StopAndFix(*problems)


def _check_stamp(connection: Connection, settings: Settings) -> None:
    problem = stamp_problem(connection, settings.env)
    if problem is not None:
        raise problem


def stamp_problem(connection: Connection, env: Environment) -> BlaidError | None:
    """Why a process of world ``env`` may not use this database; None when it may."""
    table = f"{SCHEMA}.{EnvironmentStamp.__tablename__}"
    if connection.execute(text("SELECT to_regclass(:name)"), {"name": table}).scalar() is None:
        return StopAndFix(embedded.not_initialised(repr(connection.engine.url)))
    stamped: str | None = connection.execute(text(f"SELECT env FROM {table}")).scalars().first()
    if stamped is None:
        return StopAndFix(
            Reason(
                ReasonCode.INSTALLATION_BROKEN,
                "the database carries no environment stamp, so nobody can say which world it belongs to",
                "Restore it from a backup, or begin with a new database.",
            )
        )
    if stamped != env.value:
        return Refused(
            Reason(
                ReasonCode.ENVIRONMENT_MISMATCH,
                f"this database belongs to the {stamped} world, this process to {env.value}",
                f"Set BLAID_ENV={stamped}, or point BLAID_HOME or BLAID_DATABASE_URL at a {env.value} database.",
                {"database": stamped, "process": env.value},
            )
        )
    return None


def _make_folder(folder: Path) -> None:
    mode = 0o711 if os.geteuid() == 0 else 0o700  # root's server is another user and must get through
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise StopAndFix(
            Reason(
                ReasonCode.INSTALLATION_BROKEN,
                f"cannot make {folder}: {error.strerror}",
                "Set BLAID_HOME (or BLAID_LAKE) to a folder that you may write to.",
                {"path": str(folder)},
            )
        ) from error


def _make_sandbox_key(settings: Settings) -> None:
    """In the sandbox world, make the gateway's key once. Its form is Databento's: ``db-`` and 29 characters."""
    if settings.env is not Environment.SANDBOX or settings.sandbox_key_path.exists():
        return
    temporary = settings.sandbox_key_path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("db-" + secrets.token_hex(15)[:29] + "\n")
    with suppress(FileExistsError):  # never replaces a key that another process has just made
        os.link(temporary, settings.sandbox_key_path)
    temporary.unlink()
