"""``blaid bot``: create and list bots."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from blaid_pipelines.cli.output import dollars, json_option, print_json, print_table
from blaid_pipelines.market.bars import MINUTE_NS, SCHEMA_MINUTES, bar_nanos
from blaid_pipelines.store.tables import Bot

if TYPE_CHECKING:
    from blaid_pipelines.backtest.families.base import StrategyFamily


class DollarsType(click.ParamType[Any]):
    """An amount of dollars, up to two decimals, above zero; becomes integer cents."""

    name = "USD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            cents = Decimal(str(value).replace(",", "")) * 100
        except InvalidOperation:
            self.fail(f"{value!r} is not an amount in dollars, such as 25000 or 25000.50", param, ctx)
        if not cents.is_finite() or cents != cents.to_integral_value() or cents <= 0:
            self.fail(f"{value!r} must be above zero, in whole cents", param, ctx)
        return int(cents)


def _pairs(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or not name.strip() or name.strip() in pairs:
            raise click.BadParameter(f"{value!r}: give each parameter once, as name=value", param=param)
        pairs[name.strip()] = text.strip()
    return pairs


def bot_json(bot: Bot) -> dict[str, Any]:
    """A bot's row, JSON-ready."""
    return {
        "id": str(bot.id),
        "name": bot.name,
        "stage": bot.stage,
        "instrument": bot.instrument,
        "symbol": bot.symbol,
        "schema": bot.schema,
        "strategy": bot.strategy_family,
        "params": bot.params,
        "params_hash": bot.params_hash,
        "capital_usd": bot.capital_cents / 100,
        "contracts": bot.contracts,
        "created_at": bot.created_at,
    }


@click.group()
def bot() -> None:
    """Create and list bots."""


@bot.command()
@click.argument("name")
@click.option("--instrument", required=True, help="Product root (MES), or a series of it (6EH4).")
@click.option("--strategy", required=True, metavar="FAMILY", help="Strategy family; `blaid bot strategies` lists them.")
@click.option("--param", "params", multiple=True, metavar="K=V", callback=_pairs, help="Parameter; repeatable.")
@click.option("--capital", "capital_cents", required=True, type=DollarsType(), help="Capital in dollars.")
@click.option("--contracts", default=1, show_default=True, type=click.IntRange(min=1), help="Contracts a trade.")
@click.option("--symbol", help="Series to read (MES.c.0, MESZ6); without it ROOT.c.0, else the instrument's only one.")
@click.option("--schema", default="ohlcv-1m", show_default=True, help="Bar schema of the series.")
@json_option
def create(
    name: str,
    instrument: str,
    strategy: str,
    params: dict[str, str],
    capital_cents: int,
    contracts: int,
    symbol: str | None,
    schema: str,
    as_json: bool,
) -> None:
    """Create a bot called NAME in stage LAB.

    Parameters that are not given take the family's defaults; all violations are named at once.
    """
    from blaid_pipelines.lab.bots import NewBot, create_bot
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.settings import load_settings

    new = NewBot(name, instrument, strategy, params, capital_cents, contracts, symbol, schema)
    with open_lab(load_settings()) as lab:
        created = create_bot(lab, new)
    if as_json:
        print_json({"success": True, "bot": bot_json(created)})
        return
    click.echo(f"Created {created.name}: {created.strategy_family} on {created.symbol or created.instrument}, in LAB.")
    click.echo(f"Next: blaid backtest {created.name}")


@bot.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List all bots."""
    from blaid_pipelines.lab.bots import list_bots
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.settings import load_settings

    with open_lab(load_settings()) as lab:
        bots = list_bots(lab)
    if as_json:
        print_json({"success": True, "bots": [bot_json(row) for row in bots]})
        return
    if not bots:
        click.echo("No bots yet. Make one: blaid bot create NAME --instrument MES --strategy ma_cross --capital 25000")
        return
    print_table(
        "Bots",
        ("name", "stage", "instrument", "series", "strategy", "parameters", "capital USD", "contracts"),
        (
            (
                row.name,
                row.stage,
                row.instrument,
                row.symbol or f"({row.instrument}.c.0, or its only one)",
                row.strategy_family,
                ", ".join(f"{key}={value}" for key, value in sorted(row.params.items())),
                dollars(row.capital_cents),
                row.contracts,
            )
            for row in bots
        ),
        right=("capital USD", "contracts"),
    )


@bot.command()
@click.argument("family", required=False)
@json_option
def strategies(family: str | None, as_json: bool) -> None:
    """List the strategy families, or the parameters of one FAMILY with defaults and bounds."""
    from blaid_pipelines.backtest.strategy import FAMILIES, get_family

    chosen = list(FAMILIES.values()) if family is None else [get_family(family)]
    if as_json:
        print_json({"success": True, **_strategies_json(chosen)})
    elif family is None:
        rows = [
            (each.name, each.title, len(each.parameters), _warmup(each), _suited(each).replace("ohlcv-", ""))
            for each in chosen
        ]
        print_table(
            "Strategy families", ("family", "what it does", "parameters", "warm-up", "bars"), rows,
            right=("parameters", "warm-up"),
        )  # fmt: skip
        click.echo("Warm-up (in one-minute bars) and bars are those of the default parameters.")
        click.echo(f"Next: blaid bot strategies {chosen[0].name}   shows its rule and its parameters")
    else:
        click.echo(f"{chosen[0].title}\n\n{click.wrap_text(chosen[0].doc, 100)}\n")
        shown = ("parameter", "default", "low", "high", "step", "meaning")
        table = [[row[name] for name in shown] for row in _parameters(chosen)]
        print_table(family, shown, table, right=("default", "low", "high", "step"))


def _strategies_json(families: Sequence[StrategyFamily]) -> dict[str, Any]:
    return {
        "families": {family.name: family.title for family in families},
        "docs": {family.name: family.doc for family in families},
        "warmup_bars": {family.name: _warmup(family) for family in families},
        "bars": {family.name: _suited(family).split(", ") for family in families},
        "parameters": _parameters(families),
    }


def _parameters(families: Sequence[StrategyFamily]) -> list[dict[str, Any]]:
    return [
        {
            "family": family.name,
            "parameter": name,
            "kind": parameter.kind,
            "default": parameter.default,
            "low": parameter.low,
            "high": parameter.high,
            "step": parameter.step,
            "meaning": parameter.doc,
        }
        for family in families
        for name, parameter in family.parameters.items()
    ]


def _warmup(family: StrategyFamily) -> int:
    """Bars of warm-up with the default parameters, on one-minute bars."""
    return family.warmup_for(_defaults(family), MINUTE_NS)


def _suited(family: StrategyFamily) -> str:
    """The schemas that the family can be kept on with its default parameters."""
    kept = [schema for schema in SCHEMA_MINUTES if not family.unsuited(_defaults(family), bar_nanos(schema))]
    return ", ".join(kept)


def _defaults(family: StrategyFamily) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in family.parameters.items()}
