"""Dagster assets, their checks and their jobs: thin shells around ``blaid_pipelines``, a module a stage."""
