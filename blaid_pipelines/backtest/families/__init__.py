"""The built-in strategy families, one module each. ``backtest.strategy`` is the way in."""
