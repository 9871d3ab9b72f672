"""Migrations: Alembic's, from the folder `migrations/` that is shipped in the package."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from searchlib.catalog.database import too_new


def script_folder() -> Path:
    """Where the migrations lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def config() -> Config:
    """Alembic's configuration for the shipped migrations."""
    result = Config()
    # Alembic interpolates % in its options.
    result.set_main_option("script_location", str(script_folder()).replace("%", "%%"))
    result.set_main_option("path_separator", "os")
    return result


def upgrade(connection: Connection, path: Path, revision: str | None) -> None:
    """Bring a database to the newest revision inside the connection's transaction.

    Args:
        connection: inside a writing transaction.
        path: of the database, for messages.
        revision: that it is at, None for an empty one.

    Raises:
        LibraryTooNewError: the revision is not among the shipped ones.
    """
    settings = config()
    known = {script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()}
    if revision is not None and revision not in known:
        raise too_new(path, revision)
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")
