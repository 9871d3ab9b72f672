"""HTTP(S) with guards, for images and models; it knows nothing of either.

    fetch(url)      the body of a small thing, whole
    stream(url)     the answer, with the body in pieces
    Guard           where a request may go

What is guarded: the schemes, the redirects and where they lead, the addresses that are connected
to, the size of what comes, and the time it takes. What goes wrong is a `WebError`.

httpcore2, the layer that httpx2 is built on, is used directly, because httpx2 has no place to
choose the address that is connected to, nor to bound the time that slow headers take. It is
imported with the first request only.
"""

from searchlib.web.guard import Guard, Resolver, is_localhost, is_public, resolve
from searchlib.web.request import MAX_REDIRECTS, Answer, fetch, stream
from searchlib.web.words import shown, size_words, status_words

__all__ = [
    "MAX_REDIRECTS",
    "Answer",
    "Guard",
    "Resolver",
    "fetch",
    "is_localhost",
    "is_public",
    "resolve",
    "shown",
    "size_words",
    "status_words",
    "stream",
]
