"""``blaid demo``: the main job end to end on this machine, without a key and without the network.

It makes an installation if there is none, serves the sandbox gateway, pulls three series through the quality gate, runs
a cohort of bots to a promotion decision on a real Dagster instance, builds the warehouse, and compares the three counts
of external calls. Everything it does is done by the jobs and functions of production; only the scenario is here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blaid_pipelines.cli.output import json_option, note, print_json, program
from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode

if TYPE_CHECKING:
    from blaid_pipelines.settings import Settings

START, END, SCHEMA = "2024-01-02", "2024-06-28", "ohlcv-1m"


@dataclass(frozen=True)
class DemoBot:
    """One bot of the scenario, what it is there to show, and the reason by which one sees it."""

    name: str
    symbol: str
    strategy: str
    capital_usd: int
    shows: str
    expected: str | None = None
    params: dict[str, str] = field(default_factory=dict)


BOTS = (
    DemoBot(
        "trend-mes",
        "MES.c.0",
        "ma_cross",
        25_000,
        "good in every gate but one: no broker is configured",
        "BROKER_REQUIRED_FOR_PAPER",
    ),
    DemoBot(
        "thin-mes",
        "MES.c.0",
        "ma_cross",
        2_000,
        "earns, but its drawdown is over 20 % of the little capital it has",
        "MAX_DRAWDOWN_EXCEEDED",
        {"fast": "120", "slow": "480", "stop_ticks": "40", "target_ticks": "40"},
    ),
    DemoBot(
        "trend-m2k",
        "M2K.c.0",
        "ma_cross",
        25_000,
        "its bars have a hole inside a session: never backtested",
        "DATA_QUALITY_FAILED",
    ),
    DemoBot(
        "churn-mnq",
        "MNQ.c.0",
        "ma_cross",
        5_000,
        "trades noise far too often",
        None,
        {"fast": "2", "slow": "5"},
    ),
)
# Real bars, taken only where the folder of real market data is named.
REAL_FILE = Path("eurofx_6E") / "6EH4.XCME_1min_bars_20240101_20240131.csv.gz"
REAL_BOT = DemoBot("revert-6e", "6EH4", "zscore_reversion", 50_000, "real bars of 6EH4")


class Steps:
    """Progress lines: which step, how long it took."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._began = total, 0, time.monotonic()

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """One step; its time is shown when it ends."""
        self._done += 1
        began = time.monotonic()
        note(f"[{self._done}/{self._total}] {text} ...")
        yield
        note(f"      {time.monotonic() - began:.1f} s")

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self._began


@click.command()
@json_option
@click.pass_context
def demo(ctx: click.Context, as_json: bool) -> None:
    """Run the main job end to end against the sandbox gateway, and show what was decided and why.

    Needs no key. Exits 0 although bots are refused: refusing them is the point. A second run pulls nothing again and
    adds one more session per bot.
    """
    from blaid_pipelines.settings import Environment, load_settings
    from blaid_pipelines.store.database import initialise

    settings = load_settings()
    if settings.env is not Environment.SANDBOX:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"the demo runs in the sandbox world; BLAID_ENV is {settings.env.value}",
                "Run it with BLAID_ENV=sandbox (the default) and a data folder of its own.",
                {"env": settings.env.value},
            )
        )
    real = _real_file()
    bots = (*BOTS, REAL_BOT) if real else BOTS
    steps = Steps(6)
    with steps.step(f"Starting Postgres and migrating ({settings.home})"):
        store = initialise(settings)
    with store, _gateway(settings, steps):
        report = _scenario(settings, steps, bots, real)
    report["seconds"] = round(steps.elapsed_s, 1)
    if as_json:
        print_json(report)
    ok = _show(report, bots, settings, as_json=as_json)
    if not ok:
        ctx.exit(1)


@contextmanager
def _gateway(settings: Settings, steps: Steps) -> Iterator[None]:
    """Serve the default series on the installation's port, unless `blaid up` or BLAID_DATABENTO_URL already does."""
    from blaid_pipelines.proof.usage import request_log_path
    from blaid_pipelines.sandbox.catalog import default_series
    from blaid_pipelines.sandbox.gateway import SandboxGateway
    from blaid_pipelines.stack.lifecycle import status

    gateway = None
    with steps.step("Serving the sandbox gateway (Databento's protocol, seeded bars)"):
        up = any(process.name == "sandbox" and process.state == "running" for process in status(settings))
        key = settings.databento_key()
        if up or settings.databento_url_setting is not None:
            note(f"      using the one at {settings.databento_url}")
        elif key is not None:
            gateway = SandboxGateway(
                default_series(),
                key=key.get_secret_value(),
                port=settings.sandbox_port,
                request_log=request_log_path(settings),
            ).start()
    try:
        yield
    finally:
        if gateway is not None:
            gateway.stop()


def _scenario(settings: Settings, steps: Steps, bots: tuple[DemoBot, ...], real: Path | None) -> dict[str, Any]:
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.lab.status import status_report
    from resources.commands import run_lab_cycle, run_market_data, run_warehouse

    with steps.step("Pulling bars and judging them (Dagster job market_data, one run per series)"):
        for symbol in dict.fromkeys(bot.symbol for bot in BOTS):
            pulled = {"source": "pull", "data_schema": SCHEMA, "start": START, "end": END}
            outcome = run_market_data(settings, symbol, pulled)
            note(_series_line(settings, symbol, outcome))
        if real:
            files = {"source": "file", "data_schema": SCHEMA, "files": [str(real)], "stamp": "close", "tz": "UTC"}
            outcome = run_market_data(settings, REAL_BOT.symbol, files)
            note(_series_line(settings, REAL_BOT.symbol, outcome))
    with steps.step("Creating bots"):
        for bot in bots:
            _ensure_bot(settings, bot)
    with steps.step(f"Backtest, diagnostics, score, decision of {len(bots)} bots (Dagster job lab_cycle, one run)"):
        run_lab_cycle(settings, [bot.name for bot in bots])
    with steps.step("Building the warehouse (Dagster job warehouse: dbt on DuckDB)"):
        run_warehouse(settings)
    with open_lab(settings) as lab:
        return status_report(lab)


def _series_line(settings: Settings, symbol: str, outcome: Any) -> str:
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.market.lake.snapshots import verdict_of

    metadata = outcome.bars
    with open_lab(settings) as lab:
        verdict = verdict_of(lab.store, metadata["snapshot_id"])
    codes = "" if verdict is None else ", ".join(sorted({reason["code"] for reason in verdict.reasons}))
    quality = "UNKNOWN" if verdict is None else verdict.status
    pulled = "" if metadata.get("bars_pulled") is None else f", {metadata['bars_pulled']:,} pulled now"
    return f"      {symbol}: {metadata['bars']:,} bars{pulled}; quality {quality}" + (f" ({codes})" if codes else "")


def _ensure_bot(settings: Settings, bot: DemoBot) -> None:
    from blaid_pipelines.lab.bots import NewBot, create_bot
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.market.instruments import instrument_root

    new = NewBot(
        bot.name, instrument_root(bot.symbol), bot.strategy, bot.params, bot.capital_usd * 100, symbol=bot.symbol
    )
    with open_lab(settings) as lab:
        try:
            create_bot(lab, new)
        except BlaidError as error:
            if error.reason.code is not ReasonCode.ALREADY_EXISTS:
                raise


def _show(report: dict[str, Any], bots: tuple[DemoBot, ...], settings: Settings, *, as_json: bool) -> bool:
    from blaid_pipelines.cli.research import print_statuses, proof_line
    from blaid_pipelines.lab.status import BotStatus

    agree: bool = report["proof"]["equal"]
    if as_json:
        return agree
    wanted = {bot.name for bot in bots}
    print_statuses([BotStatus(**row) for row in report["bots"] if row["name"] in wanted], "What was decided")
    decided = {row["name"]: row["reason"] for row in report["bots"]}
    for bot in bots:
        if bot.expected in {None, decided[bot.name]}:
            click.echo(f"  {bot.name}: {bot.shows}")
        else:
            click.echo(
                f"  {bot.name}: {decided[bot.name]}, where the demo's own bars give {bot.expected}: other bars of"
            )
            click.echo(f"    {bot.symbol} were pulled or ingested since, or a broker was configured")
    click.echo("")
    click.echo(proof_line(report["proof"]))
    click.echo(f"Done in {report['seconds']} s. What to open next:")
    blaid = program()
    evidence = "select bot_name, decision, first_failing_gate from promotion_evidence where is_latest"
    advice = {
        f"{blaid} explain trend-mes": "every gate with its input and threshold, the evidence, the trace ids",
        f"{blaid} status": "all bots and the proof of use",
        f"{blaid} up": f"the Dagster UI on http://127.0.0.1:{settings.webserver_port}",
        f'{blaid} sql "{evidence}"': "",
    }
    width = max(map(len, list(advice)[:-1]))
    for command, what in advice.items():
        click.echo(f"  {command:<{width}}   {what}".rstrip())
    return agree


def _real_file() -> Path | None:
    folder = os.environ.get("BLAID_REAL_DATA")
    path = Path(folder) / REAL_FILE if folder else None
    return path if path is not None and path.is_file() else None
