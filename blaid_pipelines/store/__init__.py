"""The store: tables, migrations, the embedded server, sessions. Postgres is the source of truth.

No business rules live here; a row's meaning belongs to the layer that writes it.
"""
