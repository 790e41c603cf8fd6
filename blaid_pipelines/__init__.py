"""Blaid: everything that is not Dagster, importable and testable without it.

The packages below this one are layered (see ARCHITECTURE.md); an import only points downwards.
"""

__version__ = "0.1.0"
