"""The backtest: strategies, kernel, reference, metrics and diagnostics. Pure functions of bars and parameters."""
