"""Contracts as providers define them, and what is known of their days: definitions, open interest, cleared volume.

Rows come from DBN files (schemas ``definition`` and ``statistics``) and from CSV, into ``contract_definitions`` and
``contract_days``, which are only ever added to; the newest statement counts. The ``instruments`` table stays the
authority on a product: a definition that contradicts it is refused, and nothing of its file is kept. Reading the files
is in ``intake.reference``; expiry by rule is in ``expiry``.

Rows from a sandbox gateway are marked as simulated and are not used unless somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from blaid_pipelines.ids import fingerprint
from blaid_pipelines.market.bars import from_ns, to_ns
from blaid_pipelines.market.expiry import contract_month, expiry_ns
from blaid_pipelines.market.instruments import (
    InstrumentSpec,
    cross_check,
    get_instrument,
    instrument_root,
    is_contract,
    list_instruments,
)
from blaid_pipelines.market.intake.reference import DayCount, ReferenceFile, read_reference
from blaid_pipelines.providers.databento.dbn import ContractMap, Definition, SymbolInterval
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import ContractDay, ContractDefinition

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from blaid_pipelines.store.database import Store

SOURCE_KEY = "file"
FUTURE = "F"
"""Instrument class of an outright future; spreads, options and shares have others."""
_MONTHS_APART = 2  # CL stops trading in the month before the one in its name, nothing further off
_SHOWN = 12


@dataclass(frozen=True)
class Imported:
    """What an import added, what was there already, and what of the files was left out, by why."""

    definitions: int
    definitions_known: int
    days: int
    days_known: int
    contracts: list[str]
    left_out: dict[str, int]
    simulated: bool
    files: list[str]


@dataclass(frozen=True)
class KnownContract:
    """One contract as it stands: its newest definition and the sessions on which its open interest is known."""

    contract: str
    instrument: str
    expires: datetime
    definition: dict[str, Any]
    instrument_id: int | None
    source_key: str
    simulated: bool
    open_interest_days: int
    last_open_interest: int | None
    last_session: date | None


@dataclass
class _Tally:
    """Counts while the rows of one import are added."""

    added: dict[str, int] = field(default_factory=lambda: {"definitions": 0, "days": 0})
    known: dict[str, int] = field(default_factory=lambda: {"definitions": 0, "days": 0})
    contracts: set[str] = field(default_factory=set)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, why: str) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + 1


def import_contracts(store: Store, paths: Sequence[Path], *, trace_id: str, tz: str | None = None) -> Imported:
    """Add what the files say of contracts of known products: all of it in one transaction, or nothing.

    ``tz`` is the zone of times without one in CSV files. Outright futures alone are taken. Raises
    :class:`StopAndFix` for files that cannot be read, :class:`Refused` (``INSTRUMENT_MISMATCH``) where a definition
    contradicts our row of the product or its own name, :class:`InvalidRequest` (``INSTRUMENT_UNKNOWN``) where nothing
    in the files is of a product in the table.
    """
    if not paths:
        raise InvalidRequest(
            Reason(ReasonCode.INVALID_REQUEST, "no file is given", "Name DBN or CSV files.", {"files": []})
        )
    names = names_of_ids(store)
    files = [read_reference(Path(path), names, tz) for path in paths]
    specs = {spec.symbol: spec for spec in list_instruments(store)}
    tally = _Tally()
    with store.session() as session:
        for file in files:
            import_definitions(session, specs, file, trace_id, tally)
            import_open_interest(session, specs, file, trace_id, tally)
    if not tally.contracts:
        raise InvalidRequest(
            Reason(
                ReasonCode.INSTRUMENT_UNKNOWN,
                "the files say nothing of an outright future of a known product",
                f"Give files about one of: {', '.join(sorted(specs))}.",
                {"files": [file.name for file in files][:_SHOWN], "left_out": tally.left_out},
            )
        )
    return Imported(
        tally.added["definitions"],
        tally.known["definitions"],
        tally.added["days"],
        tally.known["days"],
        sorted(tally.contracts),
        tally.left_out,
        any(file.simulated for file in files),
        [file.name for file in files],
    )


def import_definitions(
    session: Session, specs: dict[str, InstrumentSpec], file: ReferenceFile, trace_id: str, tally: _Tally
) -> None:
    """Add the definitions of a file to ``session``; a statement that is on record already is not repeated."""
    differences: list[Reason] = []
    for entry in file.definitions:
        spec = specs.get(entry.asset)
        if entry.instrument_class != FUTURE or not is_contract(entry.raw_symbol):
            tally.leave_out("no outright future")
        elif spec is None:
            tally.leave_out(f"product {entry.asset or entry.raw_symbol} is not in the instrument table")
        else:
            found = _differences(spec, entry, whole=file.whole_definitions)
            differences += found
            if not found:
                _add_definition(session, spec, entry, file, trace_id, tally)
    if differences:
        raise Refused(*_first(differences))


def _first(reasons: list[Reason]) -> tuple[Reason, ...]:
    """Each difference once, however many records repeat it."""
    return tuple({reason.message: reason for reason in reasons}.values())[:_SHOWN]


def _differences(spec: InstrumentSpec, entry: Definition, *, whole: bool) -> list[Reason]:
    """Why a definition cannot be right; where a file gives only some fields (``whole`` false) those alone count."""
    reasons = [reason for reason in cross_check(spec, entry) if whole or reason.numbers["definition"] not in {None, ""}]
    if entry.expiration is None:
        numbers = {"symbol": spec.symbol, "contract": entry.raw_symbol, "field": "expiration"}
        text = f"{entry.raw_symbol} has no expiration"
        return [*reasons, Reason(ReasonCode.FIELD_MISSING, text, "Give the contract's last trade time.", numbers)]
    expires = from_ns(entry.expiration)
    year, month = contract_month(entry.raw_symbol, expires.date())
    apart = abs((year - expires.year) * 12 + month - expires.month)
    if apart > _MONTHS_APART or instrument_root(entry.raw_symbol) != spec.symbol:
        reasons.append(
            Reason(
                ReasonCode.INSTRUMENT_MISMATCH,
                f"{entry.raw_symbol} cannot expire on {expires.date()} as a contract of {spec.symbol}",
                "Find out which is right, the name or the time; correct the file.",
                {"symbol": spec.symbol, "contract": entry.raw_symbol, "expiration": expires.isoformat()},
            )
        )
    return reasons


def _add_definition(
    session: Session, spec: InstrumentSpec, entry: Definition, file: ReferenceFile, trace_id: str, tally: _Tally
) -> None:
    # Providers repeat a definition every day: when it was said is no part of what it says.
    said = {name: value for name, value in asdict(entry).items() if name != "ts_event"}
    assert entry.expiration is not None
    row = {
        "raw_symbol": entry.raw_symbol,
        "instrument": spec.symbol,
        "instrument_id": entry.instrument_id or None,
        "activation": None if entry.activation is None else from_ns(entry.activation),
        "expiration": from_ns(entry.expiration),
        "tick_size": None if entry.min_price_increment is None else Decimal(entry.min_price_increment).scaleb(-9),
        "currency": entry.currency or None,
        "mic": entry.exchange or None,
        "definition": said,
        "fingerprint": fingerprint(said),
        "source_key": SOURCE_KEY,
        "provenance": _provenance(file, entry.ts_event),
        "simulated": file.simulated,
        "trace_id": trace_id,
    }
    added = session.execute(
        insert(ContractDefinition).values(row).on_conflict_do_nothing().returning(ContractDefinition.id)
    ).first()
    (tally.added if added else tally.known)["definitions"] += 1
    tally.contracts.add(entry.raw_symbol)


def import_open_interest(
    session: Session, specs: dict[str, InstrumentSpec], file: ReferenceFile, trace_id: str, tally: _Tally
) -> None:
    """Add a file's open interest and cleared volume, by contract and session, where it says something new."""
    newest: dict[tuple[str, date], DayCount] = {}
    for count in file.days:
        if not is_contract(count.contract):
            tally.leave_out("no outright future" if not count.contract.startswith("#") else "contract without a name")
        elif instrument_root(count.contract) not in specs:
            tally.leave_out(f"product {instrument_root(count.contract)} is not in the instrument table")
        else:
            before = newest.get((count.contract, count.session_date))
            newest[count.contract, count.session_date] = count if before is None else before.then(count)
    known = _newest_days(session, {contract for contract, _ in newest}, SOURCE_KEY)
    for (contract, day), count in newest.items():
        tally.contracts.add(contract)
        earlier = known.get((contract, day))
        if earlier is not None and (earlier.volume, earlier.open_interest, earlier.simulated) == (
            count.volume,
            count.open_interest,
            file.simulated,
        ):
            tally.known["days"] += 1
            continue
        session.add(
            ContractDay(
                instrument=instrument_root(contract),
                raw_symbol=contract,
                session_date=day,
                volume=count.volume,
                open_interest=count.open_interest,
                source_key=SOURCE_KEY,
                provenance=_provenance(file, count.ts_event),
                simulated=file.simulated,
                trace_id=trace_id,
            )
        )
        tally.added["days"] += 1


def _provenance(file: ReferenceFile, said_ns: int | None) -> dict[str, Any]:
    said = {} if said_ns is None else {"said_at": from_ns(said_ns).isoformat()}
    return {"source": SOURCE_KEY, "file": file.name, "sha256": file.sha256, **said}


def _newest_days(
    session: Session, contracts: Iterable[str], source_key: str | None
) -> dict[tuple[str, date], ContractDay]:
    query = select(ContractDay).where(ContractDay.raw_symbol.in_(sorted(contracts)))
    if source_key is not None:
        query = query.where(ContractDay.source_key == source_key)
    rows = session.scalars(query.order_by(ContractDay.created_at, ContractDay.id))
    return {(row.raw_symbol, row.session_date): row for row in rows}


def known_expiries(
    store: Store, instrument: str, near: date | None = None, *, simulated: bool = False
) -> dict[str, int]:
    """Last trade times (ns UTC) of the contracts of a root that definitions name; they beat the product's rule.

    A one-digit name comes back every ten years: it is the contract that it means on ``near``, as
    :func:`~blaid_pipelines.market.expiry.contract_month` reads it; without ``near`` the one that expires last. Of
    several statements about one contract the newest counts. Simulated rows count only where ``simulated`` is true.
    """
    expiries: dict[str, int] = {}
    for row in _definitions(store, instrument, simulated):
        expires = to_ns(row.expiration)
        if near is None:
            expiries[row.raw_symbol] = max(expires, expiries.get(row.raw_symbol, expires))
        elif contract_month(row.raw_symbol, near) == contract_month(row.raw_symbol, row.expiration.date()):
            expiries[row.raw_symbol] = expires
    return expiries


def names_of_ids(store: Store, instrument: str | None = None, *, simulated: bool = False) -> ContractMap:
    """The contracts behind instrument ids, from activation to expiry, as imported definitions say."""
    names: dict[int, list[SymbolInterval]] = {}
    for row in _definitions(store, instrument, simulated):
        if row.instrument_id is None:
            continue
        first = date(1970, 1, 1) if row.activation is None else row.activation.astimezone(UTC).date()
        last = row.expiration.astimezone(UTC).date() + timedelta(days=1)
        names.setdefault(row.instrument_id, []).insert(0, SymbolInterval(first, last, row.raw_symbol))
    return names


def open_interest(store: Store, instrument: str, *, simulated: bool = False) -> dict[tuple[int, str], int]:
    """Open interest by (session date yyyymmdd, contract), the newest statement of any source."""
    query = select(ContractDay).where(ContractDay.instrument == instrument, ContractDay.open_interest.is_not(None))
    if not simulated:
        query = query.where(~ContractDay.simulated)
    with store.session() as session:
        rows = session.scalars(query.order_by(ContractDay.created_at, ContractDay.id))
        return {(int(f"{row.session_date:%Y%m%d}"), row.raw_symbol): int(row.open_interest or 0) for row in rows}


def list_contracts(store: Store, instrument: str) -> list[KnownContract]:
    """Every contract of a root that a definition names, by expiry, simulated ones included and marked."""
    root = get_instrument(store, instrument).symbol
    newest = {(row.raw_symbol, row.expiration): row for row in _definitions(store, root, simulated=True)}
    with store.session() as session:
        days = _newest_days(session, {symbol for symbol, _ in newest}, None)
        session.expunge_all()
    found = []
    for (symbol, expires), row in sorted(newest.items(), key=lambda item: (item[0][1], item[0][0])):
        mine = {
            day: count.open_interest
            for (contract, day), count in days.items()
            if contract == symbol
            and count.open_interest is not None
            and contract_month(symbol, day) == contract_month(symbol, expires.date())
        }
        last = max(mine, default=None)
        found.append(
            KnownContract(
                symbol,
                root,
                expires,
                row.definition,
                row.instrument_id,
                row.source_key,
                row.simulated,
                len(mine),
                None if last is None else mine[last],
                last,
            )
        )
    return found


def differs_from_rule(contract: KnownContract) -> datetime | None:
    """When the product's rule would have the contract expire, where that is another time than its definition's."""
    try:
        by_rule = from_ns(expiry_ns(contract.instrument, contract.contract, contract.expires.date()))
    except InvalidRequest:
        return None
    return None if by_rule == contract.expires else by_rule


def _definitions(store: Store, instrument: str | None, simulated: bool) -> list[ContractDefinition]:
    """Oldest statement first, so that a later one about the same contract overwrites it."""
    query = select(ContractDefinition)
    if instrument is not None:
        query = query.where(ContractDefinition.instrument == instrument)
    if not simulated:
        query = query.where(~ContractDefinition.simulated)
    with store.session() as session:
        rows = list(session.scalars(query.order_by(ContractDefinition.created_at, ContractDefinition.id)))
        session.expunge_all()
    return rows
