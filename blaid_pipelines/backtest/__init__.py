"""Backtests: bars as integer ticks, strategies as pure functions, one set of fill rules, exact money, statistics.

Nothing here reads a database, a file or a clock: bars and a specification in, trades and metrics out.
"""
