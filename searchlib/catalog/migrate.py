"""Migrations: Alembic's, from the folder `migrations/` that is shipped in the package."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from searchlib.errors import LibraryTooNewError


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


def require_known(revision: str, place: str) -> None:
    """Refuse a database that this version cannot upgrade.

    Raises:
        LibraryTooNewError: the revision is not among the shipped ones.
    """
    scripts = ScriptDirectory.from_config(config())
    if revision not in {script.revision for script in scripts.walk_revisions()}:
        raise LibraryTooNewError(
            f"{place}: a newer searchlib wrote this library (revision {revision}, this one knows "
            f"up to {scripts.get_current_head()}); upgrade searchlib"
        )


def upgrade(connection: Connection) -> None:
    """Bring a database to the newest revision, inside the connection's writing transaction."""
    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")
