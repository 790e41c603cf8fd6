"""Whether another provider may stand in when the configured one is out, and the pull that does it.

Only policy decides (``allowed_fallbacks.market_data`` of the LAB stage says ``alt_provider``), and only an outage is a
reason: nobody answers, the answer does not come or breaks off, 5xx, or the pace is limited. A refusal is never walked
around: a wrong key, a missing licence, a budget, an unknown symbol or range stay what they are. Neither is an answer
that came whole and makes no sense (``BAD_RESPONSE``): that is a finding about the provider, to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.market.lake.snapshots import current_head, get_snapshot
from blaid_pipelines.market.purchase.backup import pull_backup
from blaid_pipelines.market.purchase.pull import PullRequest, PullResult, pull
from blaid_pipelines.policy.model import Stage, effective_fallback
from blaid_pipelines.proof.recorder import CallContext
from blaid_pipelines.reasons import BlaidError, DependencyDown, Reason, ReasonCode, Refused, RetryLater

if TYPE_CHECKING:
    from blaid_pipelines.store.tables import Snapshot

OUTAGES = frozenset(
    {
        ReasonCode.PROVIDER_UNREACHABLE,
        ReasonCode.CONNECTION_BROKEN,
        ReasonCode.TIMEOUT,
        ReasonCode.UPSTREAM_5XX,
        ReasonCode.RATE_LIMITED,
    }
)
"""Failures that say the provider is out, and nothing about what was asked of it."""


def pull_or_fall_back(
    lab: LabContext, context: CallContext, request: PullRequest, progress: Callable[[str], None] | None = None
) -> PullResult:
    """Pull a range from the configured provider; where that is out and policy allows it, from the backup.

    A series that the backup stands in for is taken back whole: the pull covers what the stand-in covered. Raises what
    :func:`~blaid_pipelines.market.purchase.pull.pull` raises; where the backup fails too, the first failure with the
    backup's reasons behind it.
    """
    request = taken_back(lab, request)
    attempts = lab.policy.stages.LAB.retry_limits.provider_attempts
    try:
        return pull(
            lab.store,
            lab.settings,
            lab.recorder,
            lab.policy.budgets.data,
            context,
            request,
            progress,
            limits=lab.policy.pulls,
            attempts=attempts,
        )
    except (RetryLater, DependencyDown) as error:
        if error.reason.code not in OUTAGES or not backup_allowed(lab):
            raise
        try:
            return pull_backup(
                lab.store, lab.settings, lab.recorder, context, request, error, progress, lab.clock, attempts=attempts
            )
        except BlaidError as backup_error:
            error.reasons = (*error.reasons, *backup_error.reasons)
            raise error from backup_error


def backup_allowed(lab: LabContext, stage: Stage = Stage.LAB) -> bool:
    """Whether policy lets another provider stand in for market data at a stage."""
    settings = lab.settings
    allowed = effective_fallback(lab.policy, stage, "market_data", settings.env, settings.allow_sim_fallback)
    return allowed == "alt_provider"


def require_no_stand_in(lab: LabContext, stage: Stage, snapshot: Snapshot) -> None:
    """Refuse bars that stand in for the configured provider's where policy does not let them, be it no longer.

    Raises :class:`Refused` (``STAND_IN_REFUSED``).
    """
    why = snapshot.provenance.get("fallback_for")
    if not why or backup_allowed(lab, stage):
        return
    raise Refused(
        Reason(
            ReasonCode.STAND_IN_REFUSED,
            f"the bars of {snapshot.symbol} stand in for another provider's, and policy allows none in {stage.value}",
            f"Pull the series again: `blaid pull {snapshot.symbol} --schema {snapshot.schema} --start D --end D`.",
            {"snapshot_id": snapshot.snapshot_id, "stage": stage.value, "fallback_for": why},
        )
    )


def taken_back(lab: LabContext, request: PullRequest) -> PullRequest:
    """What a pull asks for: the request, widened to what a stand-in covers where they touch.

    The end of a stand-in must not leave bots with less.
    """
    head = current_head(lab.store, request.symbol, request.schema)
    if head is None or head.dataset != request.dataset or request.start.tzinfo is None or request.end.tzinfo is None:
        return request
    snapshot = get_snapshot(lab.store, head.snapshot_id)
    if not snapshot.provenance.get("fallback_for") or not request.start < request.end:
        return request
    if request.end < snapshot.range_start or snapshot.range_end < request.start:
        return request
    start, end = min(request.start, snapshot.range_start), max(request.end, snapshot.range_end)
    return replace(request, start=start, end=end)
