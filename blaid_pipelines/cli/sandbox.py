"""``blaid sandbox``: serve the protocols of Databento (historical) and Massive on loopback. Needs no database."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blaid_pipelines.cli.output import json_option, note
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, Refused, StopAndFix
from blaid_pipelines.settings import Environment, Settings, load_settings

if TYPE_CHECKING:
    from blaid_pipelines.sandbox.gateway import Received
    from blaid_pipelines.sandbox.series import Series


@click.command()
@click.option("--bars", type=click.Path(path_type=Path), multiple=True, help="File to serve: DBN, Parquet or CSV.")
@click.option("--symbol", multiple=True, help="Its symbol: MES.c.0, 6EH4. One for each --bars, in order.")
@click.option("--stamp", type=click.Choice(["open", "close"]), multiple=True, help="Its times are bar opens (default).")
@click.option("--tz", multiple=True, help="Zone of its times where they name none (default UTC).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port on 127.0.0.1 (default BLAID_SANDBOX_PORT; 0: any).")
@click.option("--key-file", type=click.Path(path_type=Path), help="File with the key to accept (default: yours).")
@json_option
def sandbox(
    bars: tuple[Path, ...],
    symbol: tuple[str, ...],
    stamp: tuple[str, ...],
    tz: tuple[str, ...],
    port: int | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Serve the protocols of Databento and Massive on loopback until Ctrl-C.

    Without --bars it serves seeded synthetic bars of the first half of 2024: MES.c.0 (a planted edge), MNQ.c.0,
    MYM.c.0, MGC.c.0, 6E.c.0, ZN.c.0 (noise) and M2K.c.0 (planted defects). --stamp and --tz are given once for all
    files, or once for each. Massive serves the same bars, by contract. With --json each line of output is a JSON
    document.
    """
    settings = load_settings()
    if settings.env is Environment.PRODUCTION:
        raise Refused(
            Reason(
                ReasonCode.SIMULATED_SOURCE_REFUSED,
                "The sandbox gateway is not served in the production world.",
                "Run it with BLAID_ENV=sandbox.",
                {"env": settings.env.value},
            )
        )
    key = _key(settings, key_file)
    _serve(settings, _series(bars, symbol, stamp, tz), key, port, as_json=as_json)


def _key(settings: Settings, key_file: Path | None) -> str:
    if key_file is not None:
        try:
            key = key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(
                Reason(ReasonCode.FILE_UNREADABLE, f"{key_file} cannot be read: {error}.", "Name a file with the key.")
            ) from None
    else:
        secret = settings.databento_key()
        key = "" if secret is None else secret.get_secret_value().strip()
    if not key:
        raise StopAndFix(
            Reason(
                ReasonCode.INTEGRATION_KEY_MISSING,
                "There is no key to accept.",
                "Run `blaid init`, which makes one, or give --key-file.",
                {"sandbox_key": str(settings.sandbox_key_path)},
            )
        )
    return key


def _series(bars: Sequence[Path], symbols: Sequence[str], stamps: Sequence[str], zones: Sequence[str]) -> list[Series]:
    from blaid_pipelines.sandbox.catalog import default_series
    from blaid_pipelines.sandbox.files import BarsFile, load_series

    counts = {"--symbol": len(symbols), "--stamp": len(stamps), "--tz": len(zones)}
    fits = len(symbols) == len(bars) and all(counts[name] in (0, 1, len(bars)) for name in ("--stamp", "--tz"))
    if not fits or (not bars and any(counts.values())):
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{len(bars)} --bars do not go with {', '.join(f'{n} {name}' for name, n in counts.items())}.",
                "Give one --symbol for each --bars; --stamp and --tz once for all files or once for each.",
            )
        )
    if not bars:
        return default_series()

    def of(values: Sequence[str], position: int, default: str) -> str:
        return default if not values else values[0] if len(values) == 1 else values[position]

    return [
        load_series(BarsFile(path, symbols[n], of(stamps, n, "open"), of(zones, n, "UTC")))
        for n, path in enumerate(bars)
    ]


def _serve(settings: Settings, series: Sequence[Series], key: str, port: int | None, *, as_json: bool) -> None:
    from blaid_pipelines.proof.paths import request_log_path
    from blaid_pipelines.sandbox.gateway import SandboxGateway

    def say(document: dict[str, Any], line: str) -> None:
        if as_json:
            import json

            click.echo(json.dumps(document))
        else:
            click.echo(line)

    def show(item: Received) -> None:
        asked = " ".join(
            f"{name}={item.params[name]}"
            for name in ("symbols", "schema", "start", "end", "ticker", "resolution")
            if name in item.params
        )
        say(
            {"n": item.n, "received_at": item.received_at, "endpoint": item.endpoint, "params": dict(item.params)},
            f"{item.n:>6}  {item.received_at[11:19]}  {item.endpoint}  {asked}",
        )

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    gateway = SandboxGateway(
        series,
        key=key,
        port=settings.sandbox_port if port is None else port,
        request_log=request_log_path(settings),
        on_request=show,
    )
    with gateway:
        symbols = [item.symbol for item in series]
        say({"url": gateway.url, "symbols": symbols}, f"Databento's historical protocol and Massive's on {gateway.url}")
        if not as_json:
            note(f"Serving {', '.join(symbols)}. Every answer is simulated. Ctrl-C stops.")
        while not stop.wait(3600):
            pass
    say({"stopped": True, "requests": len(gateway.received)}, f"Stopped after {len(gateway.received)} requests.")
