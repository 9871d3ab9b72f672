"""A contact sheet: the matches as one HTML file that needs nothing else.

The pictures are inside as data URIs, nothing is fetched, and there is no script. Every text is
escaped, and a path that is not valid text is shown with its odd bytes as `\\xff`; its link has the
bytes themselves.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from searchlib.cli.results import known_of, percentile_in_words
from searchlib.errors import ImageError, LibraryError
from searchlib.images import printable
from searchlib.search.match import Match, Results

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem; background: Canvas;
  color: CanvasText; }
ol { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr));
  list-style: none; margin: 0; padding: 0; }
figure { margin: 0; }
.picture { align-items: center; display: flex; height: 256px; justify-content: center;
  background: color-mix(in srgb, CanvasText 8%, Canvas); }
.picture img { height: auto; max-height: 256px; max-width: 100%; width: auto; }
.path { overflow-wrap: anywhere; }
dl { display: grid; gap: 0 .75rem; grid-template-columns: max-content 1fr; margin: .5rem 0 0; }
dd { margin: 0; overflow-wrap: anywhere; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{asked}<ol>
{items}</ol>
</main>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """A page, and what is missing on it.

    Attributes:
        html: the page.
        failed: path and reason of each picture that could not be shown.
    """

    html: str
    failed: tuple[tuple[str, str], ...]


def contact_sheet(
    results: Results, *, asked: Sequence[str], picture: Callable[[Match], Image.Image]
) -> ContactSheet:
    """Put the matches on a page, best first.

    Args:
        results: of the search.
        asked: what was asked for, a line each.
        picture: gives a small picture of a match, mode RGB, or raises an ImageError or a
            LibraryError where it cannot be read. The match is on the page all the same.
    """
    items = []
    failed = []
    for match in results:
        try:
            shown = _image(match, picture(match))
        except (ImageError, LibraryError) as error:
            failed.append((match.path, printable(str(error))))
            shown = "<p>This picture cannot be read.</p>"
        items.append(_item(match, shown))
    count = len(results.matches)
    html = _PAGE.format(
        title=f"{count} {'match' if count == 1 else 'matches'}",
        style=_STYLE,
        asked="".join(f"<p>{_text(line)}</p>\n" for line in asked),
        items="".join(items),
    )
    return ContactSheet(html, tuple(failed))


def _item(match: Match, shown: str) -> str:
    rows = {"score": f"{match.score:.3f}"}
    if match.percentile is not None:
        rows["percentile"] = percentile_in_words(match.percentile)
    rows.update(known_of(match.image))
    others = [path for path in match.image.paths if path != match.path]
    rows.update(
        {
            name: ", ".join(paths)
            for name, paths in (
                ("same bytes", others),
                ("same shot", match.stack),
                ("alike", match.alike),
            )
            if paths
        }
    )
    facts = "".join(
        f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>\n" for name, value in rows.items()
    )
    return (
        f'<li><figure>\n<div class="picture">{shown}</div>\n'
        f'<figcaption><a class="path" href="{escape(_uri(match.path))}">{_text(match.path)}</a>\n'
        f"<dl>\n{facts}</dl></figcaption>\n</figure></li>\n"
    )


def _image(match: Match, small: Image.Image) -> str:
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80, method=2, exif=b"", icc_profile=b"")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/webp;base64,{data}" width="{small.width}" height="{small.height}" '
        f'alt="{_text(Path(match.path).name)}">'
    )


def _uri(path: str) -> str:
    # A match of a server's library may have a path of another system.
    return Path(path).as_uri() if Path(path).is_absolute() else ""


def _text(text: str) -> str:
    return escape(printable(text))
