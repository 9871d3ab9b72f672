"""A library over HTTP, with FastAPI: `searchlib serve`, or `create_app` inside a server of yours.

It needs the extra `server`; nothing else in the package imports this room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchlib.lazily import lazily
from searchlib.server.settings import ServerSettings

if TYPE_CHECKING:
    from searchlib.server.app import create_app
    from searchlib.server.run import serve
    from searchlib.server.service import Service

__all__ = ["ServerSettings", "Service", "create_app", "serve"]

# Imported when first asked for: the settings alone need none of the extra.
_HOMES = {
    "Service": "searchlib.server.service",
    "create_app": "searchlib.server.app",
    "serve": "searchlib.server.run",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
