"""Which database a lake belongs to: a note in the lake, held against the database's own stamp.

Paths of bar files are relative to the lake, so that a database pointed at another lake would buy everything again, and
a clean-up would take another database's bars for leavings. Neither is guessed at: such a pair is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from blaid_pipelines.market.lake.files import lake_unwritable, write_atomically
from blaid_pipelines.market.lake.verified import OWN_FOLDER
from blaid_pipelines.reasons import Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import EnvironmentStamp, LakeSegment

if TYPE_CHECKING:
    from blaid_pipelines.store.database import Store

_SAMPLE = 50
_ADOPT = "Point BLAID_LAKE at this database's own lake; where there is no other any more, `blaid lake adopt` takes it."


def check_lake(store: Store, lake: Path) -> None:
    """Refuse a lake that is not this database's; note whose it is where both are new.

    Raises :class:`Refused` (``LAKE_MISMATCH``) for a lake of another database, for one that holds none of the newest
    files on record, and for one with bar files of which the database knows nothing.
    """
    own = _installation(store)
    noted = _noted(lake)
    if noted is not None:
        _check_owner(noted, own)
        return
    with store.session() as session:
        query = select(LakeSegment.path).order_by(LakeSegment.created_at.desc()).limit(_SAMPLE)
        newest = list(session.scalars(query))
    there = sum((lake / path).is_file() for path in newest)
    if newest and not there:
        raise _mismatch("holds none of the bar files that the database has on record", looked_for=len(newest))
    if not newest and next((lake / "bars").rglob("*.parquet"), None) is not None:
        raise _mismatch("holds bar files of which the database knows nothing")
    adopt_lake(store, lake)


def claim_lake(store: Store, lake: Path) -> None:
    """As :func:`check_lake`, for whoever has just put files of this database there: only another owner is refused."""
    noted = _noted(lake)
    if noted is None:
        adopt_lake(store, lake)
    else:
        _check_owner(noted, _installation(store))


def adopt_lake(store: Store, lake: Path) -> None:
    """Note that the lake belongs to this database, whatever was noted before."""
    value = {"installation_id": _installation(store)}
    try:
        write_atomically(_note(lake), (json.dumps(value) + "\n").encode())
    except OSError as error:
        raise lake_unwritable(error, _note(lake).relative_to(lake)) from error


def is_own_lake(store: Store, lake: Path) -> bool | None:
    """Whether the lake is noted as this database's; None where nothing is noted."""
    noted = _noted(lake)
    return None if noted is None else noted == _installation(store)


def _installation(store: Store) -> str:
    with store.session() as session:
        return str(session.scalars(select(EnvironmentStamp.installation_id)).one())


def _noted(lake: Path) -> str | None:
    try:
        value = json.loads(_note(lake).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return "unreadable"
    return str(value.get("installation_id")) if isinstance(value, dict) else "unreadable"


def _check_owner(noted: str, own: str) -> None:
    if noted != own:
        raise _mismatch("belongs to another database", noted=noted, database=own)


def _mismatch(what: str, **numbers: Any) -> Refused:
    return Refused(Reason(ReasonCode.LAKE_MISMATCH, f"the lake {what}", _ADOPT, numbers))


def _note(lake: Path) -> Path:
    return lake / OWN_FOLDER / "lake.json"
