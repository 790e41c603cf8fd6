"""``blaid docs``: the warehouse's docs on loopback until Ctrl-C; `blaid up` runs it as one of its services."""

from __future__ import annotations

import signal
import threading
from typing import Any

import click

from blaid_pipelines.cli.output import json_option, note, print_json
from blaid_pipelines.settings import load_settings


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Port on 127.0.0.1 (default BLAID_DOCS_PORT; 0: any).")
@json_option
def docs(port: int | None, as_json: bool) -> None:
    """Serve the docs of the warehouse (models, columns, tests, lineage) on loopback until Ctrl-C.

    The page is made with every build of the warehouse and always belongs to the current one. `blaid up` serves it too.
    """
    from blaid_pipelines.stack.docs_server import open_server

    settings = load_settings()
    with open_server(settings, settings.docs_port if port is None else port) as server:
        url = f"http://127.0.0.1:{server.port}"

        def stop(*_: Any) -> None:
            threading.Thread(target=server.shutdown).start()  # it waits for the loop that this signal interrupts

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        if as_json:
            print_json({"success": True, "url": url})
        else:
            note(f"Docs of the warehouse at {url}; Ctrl-C stops it.")
        server.serve_forever(poll_interval=0.2)
