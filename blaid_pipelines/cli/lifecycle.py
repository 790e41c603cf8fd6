"""``blaid init``, ``up``, ``down`` and ``doctor``: thin shells over :mod:`blaid_pipelines.stack` and the store."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from blaid_pipelines.cli.output import json_option, note, print_json, print_table
from blaid_pipelines.settings import load_settings


@click.command()
@json_option
def init(as_json: bool) -> None:
    """Make the data folder, the database and, in the sandbox world, the gateway's key.

    Running it again changes nothing; after an upgrade it migrates the database. A database that belongs to another
    world (BLAID_ENV) is refused. The data folder is BLAID_HOME, by default .blaid in the current folder.
    """
    from blaid_pipelines.store.database import initialise
    from blaid_pipelines.store.migrate import head_revision

    settings = load_settings()
    initialise(settings).close()
    result = {
        "success": True,
        "home": settings.home,
        "env": settings.env.value,
        "database": "embedded" if settings.database_url is None else "BLAID_DATABASE_URL",
        "revision": head_revision(),
    }
    if as_json:
        print_json(result)
    else:
        note(f"Ready: {settings.home} ({settings.env.value} world, schema {result['revision']}).")
        note("Next: `blaid demo` shows the main job, `blaid up` starts Dagster, `blaid doctor` checks everything.")


@click.command()
@click.option(
    "--workspace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Another workspace.yaml than the project's.",
)
@json_option
def up(workspace: Path | None, as_json: bool) -> None:
    """Start Postgres, the Dagster webserver and daemon and the warehouse's docs on loopback; wait until they answer.

    In the sandbox world the sandbox gateway starts too, unless BLAID_DATABENTO_URL names another one. The processes
    go on in the background; `blaid down` stops them. A second `up` on one data folder is refused.
    """
    from blaid_pipelines.stack import lifecycle

    settings = load_settings()
    found = lifecycle.up(settings, note, workspace=workspace.absolute() if workspace else None)
    if as_json:
        print_json({"success": True, "home": settings.home, "processes": [asdict(process) for process in found]})
        return
    rows = [(p.name, p.pid, p.url or "", p.log or "") for p in found if p.state == "running"]
    print_table("Up", ["process", "pid", "address", "log"], rows, right=["pid"])
    note("Open the Dagster address in a browser; `docs` explains the marts. Stop everything with `blaid down`.")


@click.command()
@json_option
def down(as_json: bool) -> None:
    """Stop everything that `blaid up` started, code servers and run workers and the embedded Postgres included."""
    from blaid_pipelines.stack import lifecycle

    settings = load_settings()
    stopped = lifecycle.down(settings, note)
    if as_json:
        print_json({"success": True, **asdict(stopped)})
        return
    parts = [f"{len(stopped.processes)} processes ended"] if stopped.processes else []
    if stopped.postgres_stopped:
        parts.append("Postgres stopped")
    note(", ".join(parts) + "." if parts else "Nothing was running.")


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what is wrong with this installation and how to mend it. Exit code 1 when something is."""
    from blaid_pipelines.stack.doctor import examine

    settings = load_settings()
    checks = examine(settings)
    healthy = all(check.ok for check in checks)
    if as_json:
        print_json({"success": healthy, "checks": [check.as_dict() for check in checks]})
    else:
        for check in checks:
            click.echo(f"{'ok     ' if check.ok else 'PROBLEM'}  {check.name}: {check.message}")
            if not check.ok and check.suggested_fix:
                click.echo(f"         Next: {check.suggested_fix}")
        bad = sum(not check.ok for check in checks)
        click.echo("Everything is in order." if healthy else f"{bad} problem{'s' if bad > 1 else ''}.")
    if not healthy:
        sys.exit(1)
