"""Whether a snapshot's bars are the ones that its cited calls or files brought: the proof bound to the data.

That every cited request succeeded (``proof.usage``) says nothing about these bars: any request would do. Here each
link is followed: snapshot to bar files, bar file to its segment row, segment to the requests that it cites, request to
symbol, schema, range and number of bars. What cannot be followed is a reason, and a reason refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import select

from blaid_pipelines.market.bars import from_ns, to_ns
from blaid_pipelines.market.instruments import instrument_root, is_contract
from blaid_pipelines.market.lake.snapshots import Series, get_snapshot, snapshot_id_of
from blaid_pipelines.market.purchase.budget import PROVIDER, RANGE_ENDPOINT
from blaid_pipelines.market.spans import Span, uncovered
from blaid_pipelines.proof.usage import check_requests
from blaid_pipelines.reasons import Reason, ReasonCode
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.store.database import Store

FILE_SOURCE = "file"
BACKUP = "massive"


@dataclass(frozen=True, slots=True)
class CallSource:
    """A provider whose calls brought bars, and which of its calls count for a series.

    ``bar_endpoint`` is the call that brings bars; ``about`` says whether one of these asked for bars of just this
    series, ``helps`` whether any other cited call is one that belongs to such a purchase.
    """

    provider: str
    bar_endpoint: str
    about: Callable[[ProviderRequest, Snapshot], bool]
    helps: Callable[[ProviderRequest, Snapshot], bool]


def _databento_bars(request: ProviderRequest, row: Snapshot) -> bool:
    asked = (request.symbol, request.schema, request.params.get("symbols"), request.params.get("dataset"))
    return asked == (row.symbol, row.schema, [row.symbol], row.dataset)


def _databento_names(request: ProviderRequest, row: Snapshot) -> bool:
    """The resolution of the symbol, or of the instrument ids that the first one gave: these are numbers."""
    symbols = request.params.get("symbols")
    if request.endpoint != "symbology.resolve" or request.params.get("dataset") != row.dataset:
        return False
    if not isinstance(symbols, list):
        return False
    return symbols == [row.symbol] or (bool(symbols) and all(str(symbol).isdigit() for symbol in symbols))


def _massive_bars(request: ProviderRequest, row: Snapshot) -> bool:
    """Massive knows contracts alone: that of the series, or one of the root that the series rolls through."""
    if request.schema != row.schema or request.symbol is None:
        return False
    if is_contract(row.symbol):
        return request.symbol == row.symbol
    return is_contract(request.symbol) and instrument_root(request.symbol) == row.instrument


CALL_SOURCES: dict[str, CallSource] = {
    PROVIDER: CallSource(PROVIDER, RANGE_ENDPOINT, _databento_bars, _databento_names),
    BACKUP: CallSource(BACKUP, "futures/v1/aggs", _massive_bars, lambda *_: False),
}
"""Sources whose bars came by calls, by the ``source`` of the provenance. A source that is not here proves nothing."""

_FIX = (
    "Do not act on these bars. Take them anew: ingest the files again under another name, or remove the snapshot's bar "
    "files from the lake and pull the range again, which buys what is not there and records it."
)
_SHOWN = 20


def check_snapshot_proof(store: Store, snapshot: Snapshot) -> list[Reason]:
    """Reasons why it is not proven where the bars of ``snapshot`` came from; empty when every link holds.

    Pulled bars: the id matches content and provenance; every cited request succeeded, was asked of this provider about
    this dataset, symbol and schema, and is cited by a segment in use; each bar file in use has its segment row of this
    source; each segment's own requests cover its range and brought as many bars as are on record for them; the files
    together cover the snapshot's range. Bars from files: the provenance has each file's name and sha256, and so has
    each segment. The row is read again: what the caller holds is not trusted.
    """
    row = get_snapshot(store, snapshot.snapshot_id)
    found = _Findings(row)
    if _own_id(row) != row.snapshot_id:
        found.mismatch("its id is not that of its content and provenance")
    used = _segments_in_use(store, row, found)
    source = row.provenance.get("source")
    if source == FILE_SOURCE:
        _check_files(row, used, found)
    elif source in CALL_SOURCES:
        _check_calls(store, row, used, CALL_SOURCES[source], found)
    else:
        found.unknown(f"its provenance names no source that is known: {source!r}")
    return found.reasons


class _Findings:
    """Collects reasons about one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._about = {"snapshot_id": snapshot.snapshot_id, "symbol": snapshot.symbol}
        self._name = f"snapshot {snapshot.snapshot_id[:16]} of {snapshot.symbol}"
        self.reasons: list[Reason] = []

    def mismatch(self, what: str, **numbers: Any) -> None:
        self._add(ReasonCode.PROOF_MISMATCH, what, numbers)

    def unknown(self, what: str, **numbers: Any) -> None:
        self._add(ReasonCode.PROOF_UNKNOWN, what, numbers)

    def _add(self, code: ReasonCode, what: str, numbers: Mapping[str, Any]) -> None:
        self.reasons.append(Reason(code, f"{self._name}: {what}", _FIX, {**self._about, **numbers}))


def _own_id(row: Snapshot) -> str:
    series = Series(row.dataset, row.schema, row.symbol, row.instrument)
    span = to_ns(row.range_start), to_ns(row.range_end)
    return snapshot_id_of(row.content_hash, series, *span, row.provenance, row.simulated)


def _segments_in_use(store: Store, row: Snapshot, found: _Findings) -> list[LakeSegment]:
    """The segment rows of the snapshot's bar files; files without one, or used beyond its range, are findings."""
    key = row.provenance.get("source_key")
    query = select(LakeSegment).where(
        LakeSegment.dataset == row.dataset,
        LakeSegment.schema == row.schema,
        LakeSegment.symbol == row.symbol,
        LakeSegment.source_key == key,
        LakeSegment.path.in_([entry["path"] for entry in row.files]),
    )
    with store.session() as session:
        by_file = {(segment.path, segment.file_sha256): segment for segment in session.scalars(query)}
    used: dict[UUID, LakeSegment] = {}
    strange = []
    for entry in row.files:
        segment = by_file.get((entry["path"], entry["sha256"]))
        if segment is None or uncovered((entry["start_ns"], entry["end_ns"]), [_span(segment)]):
            strange.append(entry["path"])
        else:
            used[segment.id] = segment
    if strange:
        found.mismatch("bar files that no segment of its source accounts for", files=strange[:_SHOWN])
    spans = [(entry["start_ns"], entry["end_ns"]) for entry in row.files]
    _check_cover((to_ns(row.range_start), to_ns(row.range_end)), spans, "its bar files leave out part of it", found)
    if any(segment.simulated for segment in used.values()) and not row.simulated:
        found.mismatch("it uses simulated segments and is not marked simulated")
    return list(used.values())


def _check_files(row: Snapshot, used: Sequence[LakeSegment], found: _Findings) -> None:
    files = row.provenance.get("files")
    whole = isinstance(files, list) and all(
        isinstance(file, dict) and file.get("name") and _is_sha256(file.get("sha256")) for file in files
    )
    if not files or not whole:
        found.unknown("its provenance does not name each file with its sha256")
    other = [segment.path for segment in used if segment.provenance.get("files") != files]
    if other:
        found.mismatch("segments that were made from other files", files=other[:_SHOWN])
    if row.provenance.get("request_ids"):
        found.mismatch("bars from files cite provider requests")


def _check_calls(
    store: Store, row: Snapshot, used: Sequence[LakeSegment], source: CallSource, found: _Findings
) -> None:
    cited = _ids(row.provenance)
    if not cited:
        found.unknown("it cites no provider request")
        return
    found.reasons += check_requests(store, cited)
    with store.session() as session:
        requests = {
            request.id: request
            for request in session.scalars(select(ProviderRequest).where(ProviderRequest.id.in_(cited)))
        }
    foreign = [str(request.id) for request in requests.values() if not _about(request, row, source)]
    if foreign:
        found.mismatch("cited requests that asked for something else", request_ids=foreign[:_SHOWN])
    behind = {request_id for segment in used for request_id in _ids(segment.provenance)}
    if behind != set(cited):
        uncited, unused = sorted(map(str, behind - set(cited))), sorted(map(str, set(cited) - behind))
        text = "it does not cite just the requests that its segments do"
        found.mismatch(text, not_cited=uncited[:_SHOWN], not_behind_any_segment=unused[:_SHOWN])
    if any(request.simulated for request in requests.values()) and not row.simulated:
        found.mismatch("it cites simulated requests and is not marked simulated")
    brought = {
        request.id: request
        for request in requests.values()
        if request.endpoint == source.bar_endpoint and request.success is True and _about(request, row, source)
    }
    bought = [_asked(request) for request in brought.values()]
    _check_cover((to_ns(row.range_start), to_ns(row.range_end)), bought, "its requests leave out part of it", found)
    for segment in used:
        own = [_asked(brought[request_id]) for request_id in _ids(segment.provenance) if request_id in brought]
        _check_cover(_span(segment), own, f"the requests behind {segment.path} do not cover it", found)
    _check_bar_counts(store, row, brought, found)


def _check_bar_counts(store: Store, row: Snapshot, brought: Mapping[UUID, ProviderRequest], found: _Findings) -> None:
    """What requests brought together (pages of Massive's; a request of Databento's alone) is cut into files by year.

    It is cut in no other way: the files hold as many bars.
    """
    held: dict[frozenset[UUID], int] = {}
    query = select(LakeSegment).where(
        LakeSegment.dataset == row.dataset,
        LakeSegment.schema == row.schema,
        LakeSegment.symbol == row.symbol,
        LakeSegment.source_key == row.provenance.get("source_key"),
    )
    with store.session() as session:
        for segment in session.scalars(query):
            together = frozenset(each for each in _ids(segment.provenance) if each in brought)
            if together:
                held[together] = held.get(together, 0) + segment.bar_count
    for request_id in brought.keys() - {each for together in held for each in together}:
        held[frozenset({request_id})] = 0
    wrong = {
        ", ".join(sorted(map(str, together))): [sum(brought[each].bar_count or 0 for each in together), count]
        for together, count in held.items()
        if any(brought[each].bar_count is None for each in together)
        or sum(brought[each].bar_count or 0 for each in together) != count
    }
    if wrong:
        found.mismatch("requests brought another number of bars than the lake holds of them", brought_and_held=wrong)


def _about(request: ProviderRequest, row: Snapshot, source: CallSource) -> bool:
    """Whether a request was one for the bars of this series, or one that belongs to it."""
    if request.provider != source.provider:
        return False
    check = source.about if request.endpoint == source.bar_endpoint else source.helps
    return check(request, row)


def _check_cover(wanted: Span, spans: Iterable[Span], what: str, found: _Findings) -> None:
    missing = uncovered(wanted, list(spans))
    if missing:
        shown = [[from_ns(left).isoformat(), from_ns(right).isoformat()] for left, right in missing[:_SHOWN]]
        found.mismatch(what, missing=shown)


def _asked(request: ProviderRequest) -> Span:
    if request.start_ts is None or request.end_ts is None:
        return 0, 0
    return to_ns(request.start_ts), to_ns(request.end_ts)


def _span(segment: LakeSegment) -> Span:
    return to_ns(segment.range_start), to_ns(segment.range_end)


def _ids(provenance: Mapping[str, Any]) -> list[UUID]:
    """The cited request ids; what is no id stands for a request that has no row."""
    ids = []
    for value in provenance.get("request_ids") or []:
        try:
            ids.append(UUID(str(value)))
        except ValueError:
            ids.append(UUID(int=0))
    return ids


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and all(sign in "0123456789abcdef" for sign in value)
