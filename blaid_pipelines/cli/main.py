"""Entry point of ``blaid``: the commands, loaded when asked for, and the one place where errors become exit codes.

Exit codes: 0 done, 1 a difference or failure, 2 usage, 3 refused by a gate. A command module is imported only when its
command runs, so that ``blaid --help`` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import sys

import click

from blaid_pipelines import __version__
from blaid_pipelines.cli.output import report_error, unexpected, usage_error
from blaid_pipelines.reasons import BlaidError

# name: (module:attribute, one line of help); the order is the order of the help page
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("blaid_pipelines.cli.lifecycle:init", "Make the data folder, the database and the sandbox key."),
    "up": ("blaid_pipelines.cli.lifecycle:up", "Start Postgres, the Dagster webserver and daemon on loopback."),
    "down": ("blaid_pipelines.cli.lifecycle:down", "Stop everything that `blaid up` started."),
    "doctor": ("blaid_pipelines.cli.lifecycle:doctor", "Say what is wrong with an installation and how to mend it."),
    "demo": ("blaid_pipelines.cli.demo:demo", "Run the main job end to end against the sandbox gateway."),
    "pull": ("blaid_pipelines.cli.pull:pull", "Pull bars from Databento into the lake, through the quality gate."),
    "ingest": ("blaid_pipelines.cli.ingest:ingest", "Take bars or trades from files (DBN, Parquet, CSV, LEAN)."),
    "contracts": ("blaid_pipelines.cli.contracts:contracts", "Import and list contract definitions, open interest."),
    "rolls": ("blaid_pipelines.cli.rolls:rolls", "Show when contracts roll, and where a series in the lake rolled."),
    "lake": ("blaid_pipelines.cli.lake:lake", "Show what the lake holds, and remove what nothing cites."),
    "reconcile": ("blaid_pipelines.cli.reconcile:reconcile", "Hold bars against daily bars, copies, the backup."),
    "bot": ("blaid_pipelines.cli.bot:bot", "Create and list bots."),
    "backtest": ("blaid_pipelines.cli.research:backtest", "Backtest, diagnose, score and judge one bot."),
    "reproduce": ("blaid_pipelines.cli.research:reproduce", "Run a recorded session again and compare bit for bit."),
    "explain": ("blaid_pipelines.cli.research:explain", "Show why a bot is or is not promoted, with all evidence."),
    "status": ("blaid_pipelines.cli.research:status", "Show bots, decisions and the proof of use."),
    "sandbox": ("blaid_pipelines.cli.sandbox:sandbox", "Serve the Databento and Massive protocols on loopback."),
    "docs": ("blaid_pipelines.cli.docs:docs", "Serve the docs of the warehouse on loopback."),
    "sql": ("blaid_pipelines.cli.sql:sql", "Query the warehouse."),
}


class LazyGroup(click.Group):
    """A click group that knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="blaid")
def blaid() -> None:
    """Blaid takes futures-trading bots from research to production, and refuses whatever it cannot prove.

    Exit codes: 0 done, 1 a difference or failure, 2 usage, 3 refused by a gate. Every command has --json.
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments
    try:
        code = blaid.main(args=arguments, prog_name="blaid", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        if as_json:
            report_error(usage_error(error), as_json=True)
        else:
            error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        code = 130
    except BlaidError as error:
        report_error(error, as_json=as_json)
        code = error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: a defect of ours still ends typed, its stack in a file
        report_error(unexpected(error), as_json=as_json)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
