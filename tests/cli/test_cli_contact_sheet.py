"""The page of `searchlib search --html`: whole in itself, safe, and readable without pictures."""

from __future__ import annotations

import base64
import io
import os
import re
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes

from PIL import Image

from searchlib.catalog import Facts, ImageRecord
from searchlib.cli.contact_sheet import contact_sheet
from searchlib.errors import ImageGoneError
from searchlib.search import Match, Results

NASTY = '/photos/"><script>alert(1)</script>&amp;\n\u202e\udcff.jpg'
VOID = {"meta", "img", "!doctype"}


class Page(HTMLParser):
    """All elements of a page with their attributes, and its text; refuses what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def match(path: str, **values) -> Match:
    facts = Facts(
        bytes=1_234_567,
        format="JPEG",
        width=4000,
        height=3000,
        taken_at="2024-06-01T10:30:00+02:00",
        camera_make="<b>Canon</b>",
        latitude=48.85,
        longitude=2.35,
    )
    image = ImageRecord(
        7, "ab" * 32, facts, (path,), tags=("a&b",), properties=(("rating", "<5>"),)
    )
    return Match(path, 0.98765, image, rank=1, percentile=99.999, **values)


def picture(_: Match) -> Image.Image:
    return Image.new("RGB", (256, 171), "teal")


def test_a_page_has_every_picture_inside_and_asks_nobody_for_anything():
    sheet = contact_sheet(
        Results((match("/photos/one.jpg"), match("/photos/two.jpg"))), asked=[], picture=picture
    )
    page = Page(sheet.html)
    assert sheet.failed == ()
    shown = page.all("img")
    assert [each["alt"] for each in shown] == ["one.jpg", "two.jpg"]
    for each in shown:
        head, _, data = each["src"].partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == "WEBP"
            assert (str(image.width), str(image.height)) == (each["width"], each["height"])
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object", "base", "form"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
    assert "http:" not in sheet.html
    assert "https:" not in sheet.html
    assert not re.search(r"url\(|@import", sheet.html)
    assert "default-src 'none'" in str(page.all("meta"))


def test_whoever_does_not_see_the_pictures_finds_their_way():
    page = Page(contact_sheet(Results((match("/a.jpg"),)), asked=["like: b"], picture=picture).html)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("main")) == len(page.all("h1")) == len(page.all("title")) == 1
    assert len(page.all("li")) == len(page.all("figcaption")) == len(page.all("a")) == 1
    assert "1 match" in page.words
    assert "like: b" in page.words
    assert "color-scheme: light dark" in page.words


def test_what_is_known_stands_below_the_picture():
    page = Page(
        contact_sheet(
            Results((match("/a.jpg", stack=("/a.cr3",), alike=("/c.jpg", "/d.jpg")),)),
            asked=[],
            picture=picture,
        ).html
    )
    facts = page.words[page.words.index("score") :].split("\n")
    for line in (
        "score0.988",
        "percentile99.99 %",
        "size4000 x 3000, 1.2 MB",
        "formatJPEG",
        "taken2024-06-01 10:30:00",
        "camera<b>Canon</b>",
        "place48.85000, 2.35000",
        "tagsa&b",
        "propertiesrating=<5>",
        "same shot/a.cr3",
        "alike/c.jpg, /d.jpg",
    ):
        assert line in facts


def test_no_name_can_become_a_part_of_the_page():
    sheet = contact_sheet(Results((match(NASTY),)), asked=[f"like: {NASTY}"], picture=picture)
    page = Page(sheet.html)
    assert page.all("script") == []
    assert page.all("b") == []
    assert sheet.html.encode("utf-8")
    shown = '/photos/"><script>alert(1)</script>&amp;\\n\\u202e\\xff.jpg'
    assert page.words.count(shown) == 2
    (link,) = page.all("a")
    assert link["href"].startswith("file:///photos/")
    assert unquote_to_bytes(link["href"].removeprefix("file://")) == os.fsencode(NASTY)


def test_a_picture_that_cannot_be_read_is_named_and_the_rest_is_there():
    def half(of: Match) -> Image.Image:
        if of.path == "/gone.jpg":
            raise ImageGoneError("/gone.jpg: is gone")
        return picture(of)

    results = Results((match("/gone.jpg"), match("/there.jpg")))
    sheet = contact_sheet(results, asked=[], picture=half)
    page = Page(sheet.html)
    assert sheet.failed == (("/gone.jpg", "/gone.jpg: is gone"),)
    assert [each["alt"] for each in page.all("img")] == ["there.jpg"]
    assert len(page.all("li")) == 2
    assert "This picture cannot be read." in page.words


def test_a_page_of_nothing_says_so():
    page = Page(contact_sheet(Results(()), asked=["where: tag:<none>"], picture=picture).html)
    assert "0 matches" in page.words
    assert "where: tag:<none>" in page.words
    assert page.all("img") == []
