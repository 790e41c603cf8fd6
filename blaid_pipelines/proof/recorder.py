"""The recorder: no external call without a row. Intent committed before the call, outcome after it.

An adapter opens ``Recorder.attempt`` around every single call it makes. The row exists, committed, before the body
runs; when it cannot be written the body never runs. What is known afterwards is written once: a call whose process
died in between keeps ``success`` NULL, which reads as unknown and never as success. Beside the rows, ``about_to_send``
appends a line to the wire log, an independent count of calls that left; ``usage`` compares both.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from blaid_pipelines.ids import fingerprint, new_id
from blaid_pipelines.proof.paths import wire_log_path
from blaid_pipelines.proof.redact import redact_params, redact_text
from blaid_pipelines.reasons import BlaidError, DependencyDown, Reason, ReasonCode
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import ProviderRequest

__all__ = ["Attempt", "CallContext", "CallIntent", "Recorder", "wire_log_path"]

_MESSAGE_LIMIT = 2000


@dataclass(frozen=True, slots=True)
class CallContext:
    """On whose behalf a call is made."""

    trace_id: str
    bot_id: UUID | None = None
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class CallIntent:
    """What is about to be asked of whom. ``params`` are stored redacted; ``attempt`` counts from 1."""

    provider: str
    category: str
    endpoint: str
    params: Mapping[str, Any]
    simulated: bool
    symbol: str | None = None
    schema: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    attempt: int = 1


@dataclass(eq=False)
class Attempt:
    """One recorded attempt, inside its ``with`` block."""

    id: UUID
    _leave: Callable[[], None]
    _known: dict[str, Any] = field(default_factory=dict)

    def about_to_send(self) -> None:
        """Call this as the last thing before the call leaves: it appends this attempt's line to the wire log.

        Raises :class:`DependencyDown` (``LEDGER_UNAVAILABLE``) when that fails: then do not call.
        """
        self._leave()

    def outcome(
        self,
        *,
        http_status: int | None = None,
        bar_count: int | None = None,
        cost_usd: Decimal | None = None,
        response_bytes: int | None = None,
        response_sha256: str | None = None,
        provider_request_id: str | None = None,
    ) -> None:
        """What is known of the answer; may be called more than once, also before the call fails."""
        given = {
            "http_status": http_status,
            "bar_count": bar_count,
            "cost_usd": cost_usd,
            "response_bytes": response_bytes,
            "response_sha256": response_sha256,
            "provider_request_id": provider_request_id,
        }
        self._known.update({name: value for name, value in given.items() if value is not None})


class Recorder:
    """Writes the rows of external calls. Thread-safe; ``clock`` (UTC) and ``timer`` (seconds) are for tests."""

    def __init__(
        self,
        store: Store,
        wire_log: Path,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._wire_log = wire_log
        self._clock = clock
        self._timer = timer

    @contextmanager
    def attempt(self, context: CallContext, intent: CallIntent) -> Iterator[Attempt]:
        """Record one call around its body.

        The body's :class:`BlaidError` is the call's failure: its code and message go to the row and it is raised on.
        Any other ``Exception`` is recorded as ``JOB_FAILED`` and raised on; a process that is interrupted leaves the
        outcome unknown. Raises :class:`DependencyDown` (``LEDGER_UNAVAILABLE``) when the row (or the wire log) cannot
        be written: before the call, so that it is not made, or after it, so that its result is not used.
        """
        handle = self._open_wire_log()
        try:
            attempt_id = self._write_intent(context, intent)
            attempt = Attempt(attempt_id, lambda: self._append(handle, attempt_id, intent))
            started = self._timer()
            try:
                yield attempt
            except BlaidError as error:
                self._write_outcome(attempt, started, error.reason.code, error.reason.message, error)
                raise
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
                self._write_outcome(attempt, started, ReasonCode.JOB_FAILED, message, error)
                raise
            self._write_outcome(attempt, started, None, None, None)
        finally:
            os.close(handle)

    def _open_wire_log(self) -> int:
        """Open before the intent is written, so that an unwritable log leaves no row of a call that was never made."""
        try:
            self._wire_log.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._wire_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unavailable(f"The wire log cannot be opened: {error.strerror}.", path=str(self._wire_log)) from error

    def _append(self, handle: int, attempt_id: UUID, intent: CallIntent) -> None:
        line = json.dumps(
            {
                "id": str(attempt_id),
                "at": self._clock().isoformat(),
                "provider": intent.provider,
                "endpoint": intent.endpoint,
                "attempt": intent.attempt,
            }
        )
        # The newline comes first: a line that a full disk cut short must not swallow the next one.
        data = f"\n{line}".encode()
        try:
            written = os.write(handle, data)
            os.fsync(handle)
        except OSError as error:
            raise _unavailable(f"The wire log cannot be written: {error.strerror}.") from error
        if written != len(data):
            raise _unavailable("The wire log took only part of a line.", written=written, length=len(data))

    def _write_intent(self, context: CallContext, intent: CallIntent) -> UUID:
        params = redact_params(intent.params)
        row = ProviderRequest(
            id=new_id(),
            trace_id=context.trace_id,
            bot_id=context.bot_id,
            stage=context.stage,
            category=intent.category,
            provider=intent.provider,
            endpoint=intent.endpoint,
            attempt=intent.attempt,
            request_fingerprint=fingerprint(
                {"provider": intent.provider, "endpoint": intent.endpoint, "params": params}
            ),
            params=params,
            simulated=intent.simulated,
            symbol=intent.symbol,
            schema=intent.schema,
            start_ts=intent.start,
            end_ts=intent.end,
        )
        attempt_id = row.id
        try:
            with self._store.session() as session:
                session.add(row)
        except (SQLAlchemyError, BlaidError) as error:
            raise _unavailable(
                f"The intent of {intent.provider} {intent.endpoint} could not be recorded, so the call was not made.",
                cause=redact_text(str(error))[:300],
            ) from error
        return attempt_id

    def _write_outcome(
        self,
        attempt: Attempt,
        started: float,
        code: ReasonCode | None,
        message: str | None,
        cause: Exception | None,
    ) -> None:
        values = {
            **attempt._known,
            "completed_at": self._clock(),
            "success": code is None,
            "latency_ms": max(0, round((self._timer() - started) * 1000)),
            "error_code": None if code is None else code.value,
            "error_message": None if message is None else redact_text(message)[:_MESSAGE_LIMIT],
        }
        try:
            with self._store.session() as session:
                session.execute(update(ProviderRequest).where(ProviderRequest.id == attempt.id).values(**values))
        except (SQLAlchemyError, BlaidError) as error:
            more = cause.reasons if isinstance(cause, BlaidError) else ()
            raise _unavailable(
                "The outcome of a call could not be recorded; it stays unknown and its result is not used.",
                *more,
                request_id=str(attempt.id),
                cause=redact_text(str(error))[:300],
            ) from error


def _unavailable(message: str, *more: Reason, **numbers: Any) -> DependencyDown:
    return DependencyDown(
        Reason(
            ReasonCode.LEDGER_UNAVAILABLE,
            message,
            "See that the database answers and the data folder can be written (`blaid doctor`), then try again.",
            numbers,
        ),
        *more,
    )
