"""The history of schema ``blaid``, run by Alembic from inside the package; no ``alembic.ini`` is needed."""
