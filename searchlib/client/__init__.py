"""A library on another machine, or in another process: the questions of Library, over HTTP."""

from searchlib.client.client import Client
from searchlib.client.sending import encoded

__all__ = ["Client", "encoded"]
