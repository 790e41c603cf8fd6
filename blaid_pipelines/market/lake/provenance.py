"""Whether a snapshot's bars are the ones that its cited calls or files brought: the proof bound to the data.

That every cited request succeeded (``proof.usage``) says nothing about these bars: any request would do. Here each
link is followed: snapshot to bar files, bar file to its segment row, segment to the requests that it cites, request to
symbol, schema, range and number of bars. What cannot be followed is a reason, and a reason refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import select

from blaid_pipelines.market.bars import from_ns, to_ns
from blaid_pipelines.market.lake.snapshots import Series, get_snapshot, snapshot_id_of
from blaid_pipelines.market.purchase.budget import PROVIDER, RANGE_ENDPOINT
from blaid_pipelines.market.spans import Span, uncovered
from blaid_pipelines.proof.usage import check_requests
from blaid_pipelines.reasons import Reason, ReasonCode
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.store.database import Store

FILE_SOURCE = "file"
RESOLVE_ENDPOINT = "symbology.resolve"

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
    elif source == PROVIDER:
        _check_calls(store, row, used, found)
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


def _check_calls(store: Store, row: Snapshot, used: Sequence[LakeSegment], found: _Findings) -> None:
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
    foreign = [str(request.id) for request in requests.values() if not _about(request, row)]
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
        if request.endpoint == RANGE_ENDPOINT and request.success is True and _about(request, row)
    }
    bought = [_asked(request) for request in brought.values()]
    _check_cover((to_ns(row.range_start), to_ns(row.range_end)), bought, "its requests leave out part of it", found)
    for segment in used:
        own = [_asked(brought[request_id]) for request_id in _ids(segment.provenance) if request_id in brought]
        _check_cover(_span(segment), own, f"the requests behind {segment.path} do not cover it", found)
    _check_bar_counts(store, row, brought, found)


def _check_bar_counts(store: Store, row: Snapshot, brought: Mapping[UUID, ProviderRequest], found: _Findings) -> None:
    """A purchase is cut into files by year and not otherwise: together they hold the bars that it brought."""
    held = dict.fromkeys(brought, 0)
    query = select(LakeSegment).where(
        LakeSegment.dataset == row.dataset,
        LakeSegment.schema == row.schema,
        LakeSegment.symbol == row.symbol,
        LakeSegment.source_key == row.provenance.get("source_key"),
    )
    with store.session() as session:
        for segment in session.scalars(query):
            for request_id in _ids(segment.provenance):
                if request_id in held:
                    held[request_id] += segment.bar_count
    wrong = {
        str(request_id): [brought[request_id].bar_count, count]
        for request_id, count in held.items()
        if brought[request_id].bar_count != count
    }
    if wrong:
        found.mismatch("requests brought another number of bars than the lake holds of them", brought_and_held=wrong)


def _about(request: ProviderRequest, row: Snapshot) -> bool:
    """Whether a request was one for the bars of this series, or the resolution of its symbol that goes before it."""
    if request.provider != PROVIDER or request.params.get("dataset") != row.dataset:
        return False
    symbols = request.params.get("symbols")
    if request.endpoint == RANGE_ENDPOINT:
        return (request.symbol, request.schema, symbols) == (row.symbol, row.schema, [row.symbol])
    if request.endpoint != RESOLVE_ENDPOINT or not isinstance(symbols, list):
        return False
    # The second resolution asks what the instrument ids of the first one are called.
    return symbols == [row.symbol] or (bool(symbols) and all(str(symbol).isdigit() for symbol in symbols))


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
