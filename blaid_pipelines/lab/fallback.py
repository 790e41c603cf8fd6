"""Whether another provider may stand in when the configured one is out, and the pull that does it.

Only policy decides (``allowed_fallbacks.market_data`` of the LAB stage says ``alt_provider``), and only an outage is a
reason: nobody answers, the answer does not come or breaks off, 5xx, or the pace is limited. A refusal is never walked
around: a wrong key, a missing licence, a budget, an unknown symbol or range stay what they are. Neither is an answer
that came whole and makes no sense (``BAD_RESPONSE``): that is a finding about the provider, to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.market.lake.snapshots import current_head, get_snapshot
from blaid_pipelines.market.purchase.backup import pull_backup
from blaid_pipelines.market.purchase.pull import PullRequest, PullResult, pull
from blaid_pipelines.policy.model import Stage, effective_fallback
from blaid_pipelines.proof.recorder import CallContext
from blaid_pipelines.reasons import BlaidError, DependencyDown, ReasonCode, RetryLater

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
    request = _taken_back(lab, request)
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


def backup_allowed(lab: LabContext) -> bool:
    """Whether policy lets another provider stand in for market data in the LAB."""
    settings = lab.settings
    allowed = effective_fallback(lab.policy, Stage.LAB, "market_data", settings.env, settings.allow_sim_fallback)
    return allowed == "alt_provider"


def _taken_back(lab: LabContext, request: PullRequest) -> PullRequest:
    """The request, widened to what a stand-in covers where they touch: its end must not leave bots with less."""
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
