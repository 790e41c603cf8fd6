"""Databento: reading its files (``dbn``), calling its service (``client``), naming its errors (``errors``)."""
