"""Replies that were paid for and are not in the lake yet: kept as they came, so that nobody pays for them twice.

A purchase is answered, put on record as answered, written to the lake and recorded as a segment, one after the other.
A process that dies in between leaves a request that succeeded and bars that nobody has. Therefore the reply is written
here, whole and synced, before the request is on record as answered, and removed once its segment is. What is found
here later counts only for the request row that holds the hash of its bytes and says success.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import select

from blaid_pipelines.ids import fingerprint, sha256_hex
from blaid_pipelines.market.lake.files import lake_unwritable, write_atomically
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest

if TYPE_CHECKING:
    from blaid_pipelines.market.purchase.pull import PullRequest
    from blaid_pipelines.store.database import Store

FOLDER = "incoming"
"""Folder of the lake that holds replies on their way."""
_ENDING = ".dbn.zst"


@dataclass(frozen=True, slots=True)
class KeptReply:
    """A reply of a request that succeeded and of which no segment was made."""

    request: ProviderRequest
    data: bytes


class Spool:
    """The kept replies of one source (``source_key``) in one lake."""

    def __init__(self, lake: Path, source_key: str) -> None:
        self._lake = lake
        self._folder = lake / FOLDER / fingerprint([source_key])[:16]

    def keep(self, request_id: UUID, data: bytes) -> None:
        """Write a reply. Raises :class:`StopAndFix` where the lake cannot be written."""
        path = self._path(request_id)
        try:
            write_atomically(path, data)
        except OSError as error:
            raise lake_unwritable(error, path.relative_to(self._lake)) from error

    def drop(self, request_id: UUID) -> None:
        """Forget a reply whose bars are in the lake and on record; one that stays is dropped by the next pull."""
        with suppress(OSError):
            self._path(request_id).unlink(missing_ok=True)

    def paid_for(self, store: Store, request: PullRequest) -> Iterator[KeptReply]:
        """Replies for this series that nobody made a segment of, oldest first; drops those that somebody did."""
        found = {}
        for path in self._folder.glob(f"*{_ENDING}"):
            with suppress(ValueError):
                found[UUID(path.name.removesuffix(_ENDING))] = path
        if not found:
            return
        answered = (
            select(ProviderRequest)
            .where(
                ProviderRequest.id.in_(found),
                ProviderRequest.success.is_(True),
                ProviderRequest.symbol == request.symbol,
                ProviderRequest.schema == request.schema,
                ProviderRequest.params["dataset"].astext == request.dataset,
            )
            .order_by(ProviderRequest.created_at, ProviderRequest.id)
        )
        with store.session() as session:
            rows = list(session.scalars(answered))
            used = {
                row.id
                for row in rows
                if session.scalar(
                    select(LakeSegment.id)
                    .where(
                        LakeSegment.symbol == request.symbol,
                        LakeSegment.provenance["request_ids"].contains([str(row.id)]),
                    )
                    .limit(1)
                )
                is not None
            }
        for row in rows:
            if row.id in used:
                self.drop(row.id)
                continue
            try:
                data = found[row.id].read_bytes()
            except OSError:
                continue  # gone meanwhile: the range is missing, and is bought
            if sha256_hex(data) == row.response_sha256:
                yield KeptReply(row, data)

    def _path(self, request_id: UUID) -> Path:
        return self._folder / f"{request_id}{_ENDING}"
