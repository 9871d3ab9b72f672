"""Whatever happens to a folder, and however it is told: at the end the catalog equals the disk."""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import searchlib
from searchlib import ImageEncoder, Library
from searchlib.catalog import Catalog
from searchlib.ingest.compare import Comparison
from searchlib.ingest.hints import judge
from searchlib.ingest.intake import Handling, Intake
from searchlib.ingest.pipeline import own_folders
from searchlib.ingest.report import Report
from searchlib.ingest.settle import Settled, look
from searchlib.ingest.working import Working

NAMES = [
    "a.png",
    "b.png",
    "x/a.png",
    "x/a.b.png",
    "x/y/a.png",
    "x.png/a.png",  # a folder with the name of a picture
    "x.png",
    "\u00e9.png",
    "e\u0301.png",
    "\udcff.png",
    "ex/a.png",
]
FOLDERS = ["x", "x/y", "x.png", "ex", "z"]
NAME = st.sampled_from(NAMES)
STEP = st.one_of(
    st.tuples(st.just("write"), NAME, st.integers(0, 4)),
    st.tuples(st.sampled_from(["move", "copy", "link", "symlink"]), NAME, NAME),
    st.tuples(st.just("delete"), NAME, st.just(0)),
    st.tuples(st.just("move"), st.sampled_from(FOLDERS), st.sampled_from(FOLDERS)),
    st.tuples(st.just("drop"), st.sampled_from(FOLDERS), st.just(0)),
    st.tuples(st.just("exclude"), st.sampled_from(["", "ex/", "x/", "*.b.png"]), st.just(0)),
    st.tuples(st.just("ignore"), st.sampled_from(["", "x", "x/y"]), st.booleans()),
    st.tuples(st.sampled_from(["scan", "hint", "hint"]), st.just(""), st.just(0)),
    st.tuples(st.just("name"), NAME, st.just(0)),
)


def picture(number: int) -> bytes:
    if number == 0:
        return b"no picture"
    buffer = io.BytesIO()
    Image.new("RGB", (8 + number, 8), (40 * number, 90, 30)).save(buffer, "PNG")
    return buffer.getvalue()


CONTENTS = [picture(number) for number in range(5)]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, encoder: ImageEncoder) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("histories") / "library"
    with searchlib.open_library(folder, encoder=encoder) as library:
        yield library


@pytest.fixture(scope="module")
def catalog(library: Library) -> Iterator[Catalog]:
    with closing(Catalog(library.folder, create=False)) as catalog:
        yield catalog


class History:
    """A folder, what was touched in it since it was last told of, and the library beside it."""

    def __init__(self, library: Library, catalog: Catalog, root: Path) -> None:
        self.library, self.catalog, self.root = library, catalog, root
        self.touched: dict[str, None] = {}
        self.excluded: tuple[str, ...] = ()
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        with catalog.database.writing() as connection:
            for table in ("file", "folder"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        library.register(root)

    def take(self, what: str, one: str, two: object) -> None:
        first = self.root / one
        second = self.root / two if isinstance(two, str) else first
        new = [each for each in {*first.parents, *second.parents} if not each.exists()]
        with suppress(OSError, shutil.SameFileError):
            if what == "write":
                first.parent.mkdir(parents=True, exist_ok=True)
                first.write_bytes(CONTENTS[int(str(two))])
            elif what in ("delete", "drop"):
                first.unlink() if what == "delete" else shutil.rmtree(first)
            elif what in ("move", "copy", "link", "symlink"):
                second.parent.mkdir(parents=True, exist_ok=True)
                {
                    "move": lambda: first.rename(second),
                    "copy": lambda: shutil.copy2(first, second),
                    "link": lambda: second.hardlink_to(first),
                    "symlink": lambda: second.symlink_to(first),
                }[what]()
            elif what == "ignore":
                first = second = first / ".searchlibignore"
                first.write_text("a.png\n") if two else first.unlink()
        if what == "exclude":
            self.excluded = (one,) if one else ()
            self.library.register(self.root, exclude=self.excluded)
            self.library.add(self.root)  # as a watcher scans a folder with new rules
        elif what == "scan":
            self.library.add(self.root)
            self.touched.clear()
        elif what == "name" and first.is_file():
            self.library.add(first)
        elif what == "hint":
            self.hint()
        else:
            self.touched.update(dict.fromkeys(map(str, [*new, first, second])))

    def hint(self) -> None:
        """Tell of all that was touched, as events do: of what is in a new folder only by it."""
        folders = self.catalog.folders.all(watched=True)
        model = self.catalog.model()
        encoder = self.library.encoder
        assert model is not None
        comparison = Comparison(self.catalog, model, Report(), leave_out=own_folders(self.catalog))
        with closing(Working(self.catalog.database.folder)) as working:
            intake = Intake(self.catalog, encoder, model, Handling(1), working)
            for path in self.touched:
                found = list(judge(Settled(path, 1, look(path), 1.0), comparison, folders))
                for _ in intake.run(found):
                    pass
        comparison.flush()
        comparison.absent.resolve(folders)
        self.touched.clear()

    def on_disk(self) -> tuple[dict[str, str], set[str]]:
        """The digests of the pictures that count, and what cannot be used, by path."""
        pictures, broken = {}, set()
        for here, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if f"{name}/" not in self.excluded]
            for name in files:
                path = Path(here, name)
                if not name.endswith(".png") or path.is_dir():
                    continue
                if any(name.endswith(each[1:]) for each in self.excluded if each[0] == "*"):
                    continue
                above = [path.parent, *path.parent.parents]
                if name == "a.png" and any(
                    (each / ".searchlibignore").exists()
                    for each in above
                    if str(each).startswith(str(self.root))
                ):
                    continue
                try:
                    content = path.read_bytes()
                except OSError:  # a link that leads nowhere
                    broken.add(str(path))
                    continue
                if content == CONTENTS[0]:
                    broken.add(str(path))
                else:
                    pictures[str(path)] = blake3(content).hexdigest()
        return pictures, broken

    def in_catalog(self) -> tuple[dict[str, str], set[str]]:
        pictures = {
            path: image.digest
            for image in self.catalog.images(range(1, 100)).values()
            for path in image.paths
        }
        return pictures, {failure.path for failure in self.catalog.places.failures()}


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(STEP, max_size=14), last=st.sampled_from(["scan", "once", "hint"]))
def test_at_the_end_of_any_history_the_catalog_equals_the_disk(
    library: Library,
    catalog: Catalog,
    steps: list[tuple[str, str, object]],
    last: str,
) -> None:
    library.add(os.devnull)  # so that the model is in use
    history = History(library, catalog, library.folder.parent / "root")
    for step in steps:
        history.take(*step)
    if last == "hint" and any("link" in what for what, _, _ in steps):
        last = "scan"  # of a file that changes under another name there is no hint
    if last == "once":
        library.watch(once=True, settle=0.0)
    else:
        history.take(last, "", 0)
    pictures, broken = history.on_disk()
    named = {str(history.root / name) for what, name, _ in steps if what == "name"}
    known, failed = history.in_catalog()
    # What was named itself may count beside the rules.
    assert {
        path: known[path] for path in known if path in pictures or path not in named
    } == pictures
    assert {path for path in failed if path in broken or path not in named} == broken
