"""Alembic's entry: runs migrations on the connection it is handed, inside the caller's transaction."""

from alembic import context

from blaid_pipelines.store.tables import SCHEMA, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
