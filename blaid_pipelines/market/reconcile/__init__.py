"""Bars held against a second account of the same bars: daily bars, another copy, the backup provider.

The comparisons are pure; what they found goes into rows, and a snapshot whose newest comparison did not pass is refused
(``rows``). Where the second account comes from is not here: files, lake and provider are ``lab.reconciliation``'s.
"""

from blaid_pipelines.market.reconcile.bars import compare_bars
from blaid_pipelines.market.reconcile.comparison import KINDS, Comparison
from blaid_pipelines.market.reconcile.daily import CONVENTIONS, compare_daily
from blaid_pipelines.market.reconcile.rows import record_reconciliation, require_reconciled
from blaid_pipelines.market.reconcile.thresholds import ReconciliationThresholds

__all__ = [
    "CONVENTIONS",
    "KINDS",
    "Comparison",
    "ReconciliationThresholds",
    "compare_bars",
    "compare_daily",
    "record_reconciliation",
    "require_reconciled",
]
