"""The `searchlib` command: parses, calls Library, prints.

Exit codes: 0 done, 1 nothing found (or, as fsck has it: an index that was wrong and was healed),
2 the command cannot be carried out, 3 done but for some files that were skipped, 130 interrupted
(SIGINT), 143 terminated (SIGTERM).
"""

from __future__ import annotations

import click

from searchlib.cli.shared import Commands, Modules


@click.group(
    cls=Commands,
    # Each is in the module of its name.
    commands=Modules(
        "add",
        "watch",
        "search",
        "images",
        "tag",
        "status",
        "folders",
        "failures",
        "index",
        "purge",
        "vectors",
        "models",
        "serve",
        "export",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="searchlib", prog_name="searchlib")
def main() -> None:
    """Find images by what they look like.

    A library remembers the images of the folders that were added to it. It lies in the folder
    given with --library, else in $SEARCHLIB_LIBRARY, else in your data folder.
    """
