"""`searchlib serve`: a library over HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from searchlib.cli import shared
from searchlib.cli.signals import stopping
from searchlib.errors import InputError

TOKEN = "SEARCHLIB_TOKEN"
"""The environment variable with the token, which a command line would show to everybody."""

_EXTRA = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    type=click.Path(path_type=Path, readable=False, file_okay=False),
    metavar="[FOLDER]...",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, readable=False, dir_okay=False),
    metavar="FILE",
    help="Callers must show the token in it.  [env: SEARCHLIB_TOKEN, with the token]",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A name that callers know this server by; may be given again.",
)
@click.option("--watch", is_flag=True, help="Keep the library in step with its folders meanwhile.")
@click.option(
    "--max-body",
    type=click.IntRange(1),
    default=100_000_000,
    show_default=True,
    metavar="BYTES",
    help="Refuse larger requests.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=150_000_000,
    show_default=True,
    metavar="N",
    help="Refuse larger pictures in requests.",
)
@click.option(
    "--queue",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    metavar="N",
    help="Send callers away when so many wait.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Requests worked on at once.  [default: as many as processors]",
)
@click.option(
    "--uploads",
    type=click.Path(path_type=Path, readable=False, file_okay=False),
    metavar="DIR",
    help="Where uploaded pictures are kept.  [default: uploads in the library]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line when it is ready.")
@shared.library_options
def serve(
    paths: tuple[Path, ...],
    host: str,
    port: int,
    token_file: Path | None,
    allowed_hosts: tuple[str, ...],
    watch: bool,
    max_body: int,
    max_pixels: int,
    queue: int,
    workers: int | None,
    uploads: Path | None,
    as_json: bool,
    folder: Path | None,
) -> None:
    """Answer over HTTP until it is stopped, as with Ctrl-C.

    Only this machine can ask, unless --host names another address; callers must show a token then.
    With --watch the library is kept in step with each FOLDER and with those that are registered.
    """
    if paths and not watch:
        raise click.UsageError("folders are for --watch; give it as well")
    _require_extra()
    from searchlib.server.settings import ServerSettings, read_token

    settings = ServerSettings(
        host=host,
        port=port,
        token=os.environ.get(TOKEN) or None if token_file is None else read_token(token_file),
        max_body=max_body,
        queue=queue,
        workers=workers,
        watch=watch,
        uploads=uploads,
        allowed_hosts=allowed_hosts,
    )
    settings.check()

    from searchlib.images import SERVER_POLICY
    from searchlib.library import open_library
    from searchlib.server.run import serve as run

    def ready(url: str) -> None:
        if as_json:
            shared.print_json_line({"url": url, "pid": os.getpid()})
        else:
            click.echo(url)

    database = os.environ.get(shared.DATABASE) or None
    with (
        open_library(
            folder, max_query_pixels=max_pixels, fetch_policy=SERVER_POLICY, database=database
        ) as library,
        stopping() as stop,
    ):
        ended = run(library, settings, folders=paths, stop=stop.event, on_ready=ready)
        if not ended:
            # A thread that is still at work could keep the process for minutes, or fail on a
            # library that is closed below it; what it had committed is kept either way.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(shared.OK)


def _require_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise InputError(
            f"the server needs {', '.join(missing)}; install them: pip install 'searchlib[server]'"
        )
