"""Databento: reading its files (``dbn``), calling its historical service (``client``), naming its errors (``errors``)."""
