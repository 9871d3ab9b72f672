"""Pictures of the web, fetched beside the work on the library.

A slow server elsewhere may take its time up to the limits of `SERVER_POLICY`; the threads that
answer questions do not wait for it.
"""

from __future__ import annotations

import anyio
import anyio.to_thread

from searchlib.images import FetchPolicy, NamedBytes
from searchlib.images.remote import fetch_picture
from searchlib.server.service import Busy

_AT_ONCE = 8
_WAITING = 32


class Fetcher:
    """Fetches what callers ask for, a few pictures at once.

    Args:
        policy: what may be fetched.
    """

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy
        self._limit = anyio.CapacityLimiter(_AT_ONCE)
        self._under_way = 0

    async def fetch(self, url: str) -> NamedBytes:
        """The picture behind a URL of http or https.

        Raises:
            SourceError: it cannot be fetched.
            Busy: too many are being fetched.
        """
        if self._under_way >= _AT_ONCE + _WAITING:
            raise Busy(self._policy.deadline)
        self._under_way += 1
        try:
            label, content = await anyio.to_thread.run_sync(
                fetch_picture, url, self._policy, limiter=self._limit
            )
        finally:
            self._under_way -= 1
        return NamedBytes(label, content)
