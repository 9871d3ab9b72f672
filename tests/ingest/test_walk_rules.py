"""The rules of a walk, on trees of awkward names: its order, its scope, its links, its films."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.catalog import FolderRecord
from searchlib.errors import InputError
from searchlib.ingest.ignore import IGNORE_FILE, check_rules
from searchlib.ingest.walk import Found, Unlisted, is_in_scope, walk


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(folder: FolderRecord | Path, **options: object) -> list[str]:
    """The paths that a walk gives, below the folder."""
    record = folder if isinstance(folder, FolderRecord) else FolderRecord(str(folder))
    items = list(walk(record, **options))  # type: ignore[arg-type]
    assert all(isinstance(item, Found) and item.folder == record.path for item in items)
    return [os.path.relpath(item.path, record.path) for item in items]


# -- any tree ------------------------------------------------------------------------------------

# Names on either side of the separator, as text and not, and some that stand for rules.
FOLDERS = ["a", "a.b", "a-", "a0", "B", "a b", "\udcff", "ä", "a\n", ".h", "node_modules", "f.jpg"]
FILES = ["a.jpg", "a.PNG", "a0.jpg", "\udcfe.jpg", "ä.png", ".h.jpg", "a\n.jpg", "a.txt", "!a.jpg"]
PATTERNS = ["*.PNG", "a/", "/a", "a.b/**", "!a.jpg", "a0.jpg", "a*", "ä*", "**/a b/", "\\!a.jpg"]
RULES = st.lists(st.sampled_from(PATTERNS), max_size=2).map(tuple)
TREE = st.lists(
    st.tuples(st.lists(st.sampled_from(FOLDERS), max_size=3), st.sampled_from(FILES)), max_size=12
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trees")


def plant(
    place: Path,
    tree: list[tuple[list[str], str]],
    ignored: list[tuple[list[str], tuple[str, ...]]] | None = None,
) -> Path:
    root = place / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for folders, name in tree:
        with contextlib.suppress(OSError):  # a file is there, where a folder should be
            folder = root.joinpath(*folders)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    for folders, patterns in ignored or []:
        folder = root.joinpath(*folders)
        if folder.is_dir():
            (folder / IGNORE_FILE).write_text("\n".join(patterns))
    return root


@settings(max_examples=80, deadline=None)
@given(tree=TREE)
def test_a_walk_is_in_the_order_of_the_paths_bytes(
    place: Path, tree: list[tuple[list[str], str]]
) -> None:
    root = plant(place, tree)
    paths = [item.path for item in walk(FolderRecord(str(root)))]
    assert paths == sorted(paths, key=os.fsencode)
    assert len(set(paths)) == len(paths)


@settings(max_examples=120, deadline=None)
@given(
    tree=TREE,
    ignored=st.lists(
        st.tuples(st.lists(st.sampled_from(FOLDERS[:4]), max_size=2), RULES), max_size=2
    ),
    include=RULES,
    exclude=RULES,
    recursive=st.booleans(),
)
def test_what_is_in_scope_is_what_a_walk_comes_to(
    place: Path,
    tree: list[tuple[list[str], str]],
    ignored: list[tuple[list[str], tuple[str, ...]]],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    recursive: bool,
) -> None:
    root = plant(place, tree, ignored)
    folder = FolderRecord(str(root), recursive=recursive, include=include, exclude=exclude)
    walked = [item.path for item in walk(folder)]
    for here, folders, files in os.walk(root):
        for name in files:
            path = str(Path(here, name))
            assert is_in_scope(folder, path, is_folder=False) == (path in walked), path
        for name in folders:
            path = str(Path(here, name))
            below = [each for each in walked if each.startswith(path + "/")]
            if is_in_scope(folder, path, is_folder=True):
                assert [item.path for item in walk(folder, start=path)] == below
            else:
                assert below == []


# -- include, exclude, depth ---------------------------------------------------------------------


def test_only_what_is_included_counts(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.png", "x/c.jpg", "x/d.png", "y/e.png", "y/raw/f.jpg")
    root = str(tmp_path)
    assert found(FolderRecord(root, include=("*.png",))) == ["b.png", "x/d.png", "y/e.png"]
    assert found(FolderRecord(root, include=("x/", "/a.jpg"))) == ["a.jpg", "x/c.jpg", "x/d.png"]
    assert found(FolderRecord(root, include=("*.png",), exclude=("y/",))) == ["b.png", "x/d.png"]
    assert found(FolderRecord(root, include=("*.gif",))) == []


def test_what_is_excluded_can_be_taken_back_by_an_ignore_file_below(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "keep/b.png", "keep/c.jpg", "raw/d.jpg")
    (tmp_path / "keep" / IGNORE_FILE).write_text("!*.png\n")
    assert found(FolderRecord(str(tmp_path), exclude=("*.png", "raw/"))) == [
        "keep/b.png",
        "keep/c.jpg",
    ]


def test_a_folder_that_is_not_recursive_ends_at_its_own_files(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "x/b.jpg")
    folder = FolderRecord(str(tmp_path), recursive=False)
    assert found(folder) == ["a.jpg"]
    assert not is_in_scope(folder, str(tmp_path / "x"), is_folder=True)
    assert is_in_scope(folder, str(tmp_path), is_folder=True)


def test_nothing_outside_is_in_scope(tmp_path: Path) -> None:
    folder = FolderRecord(str(tmp_path / "p"))
    for path in ("p.jpg", "p0/a.jpg", "a.jpg", "p-/a.jpg"):
        assert not is_in_scope(folder, str(tmp_path / path), is_folder=False)
    assert is_in_scope(folder, str(tmp_path / "p" / "a.jpg"), is_folder=False)
    whole = FolderRecord("/")
    assert is_in_scope(whole, "/a.jpg", is_folder=False)
    assert is_in_scope(whole, "/a/b", is_folder=True)
    assert not is_in_scope(whole, "/a/.b/c.jpg", is_folder=False)


@pytest.mark.parametrize("rules", [{"include": ("!",)}, {"exclude": ("a", "!")}])
def test_a_pattern_that_means_nothing_is_refused_with_the_folders_name(
    tmp_path: Path, rules: dict[str, tuple[str, ...]]
) -> None:
    folder = FolderRecord(str(tmp_path), **rules)  # type: ignore[arg-type]
    for act in (check_rules, lambda folder: list(walk(folder))):
        with pytest.raises(InputError, match="correct this pattern") as caught:
            act(folder)
        assert str(tmp_path) in str(caught.value)


def test_patterns_and_ignore_files_need_not_be_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    make(tmp_path, name, "b.jpg", f"x/{name}", "x/c.jpg")
    assert found(FolderRecord(str(tmp_path), exclude=(name,))) == ["b.jpg", "x/c.jpg"]
    (tmp_path / "x" / IGNORE_FILE).write_bytes(b"caf\xe9.jpg\n")
    assert found(tmp_path) == ["b.jpg", name, "x/c.jpg"]


# -- links ---------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with links to the outside, to the inside, around itself and to nowhere."""
    root = tmp_path / "root"
    make(root, "in/a.jpg", "b.jpg")
    make(tmp_path, "out/c.jpg", "out/deep/d.jpg", "lone/e.jpg")
    (root / "to-out").symlink_to(tmp_path / "out")
    (root / "to-in").symlink_to(root / "in")
    (root / "to-self").symlink_to(root)
    (root / "to-above").symlink_to(tmp_path)
    (root / "to-nowhere").symlink_to(tmp_path / "nowhere")
    (root / "to-itself").symlink_to(root / "to-itself")
    (root / "zz.jpg").symlink_to(tmp_path / "lone" / "e.jpg")
    (tmp_path / "out" / "back").symlink_to(root / "in")
    (tmp_path / "out" / "round").symlink_to(tmp_path / "out")
    return root


def test_links_to_folders_are_not_followed_unless_it_is_asked(linked: Path) -> None:
    folder = FolderRecord(str(linked))
    assert found(folder) == ["b.jpg", "in/a.jpg", "zz.jpg"]
    assert not is_in_scope(folder, str(linked / "to-out"), is_folder=True)
    assert not is_in_scope(folder, str(linked / "to-out" / "c.jpg"), is_folder=False)


def test_a_link_to_the_outside_is_followed_once_and_none_to_the_inside(linked: Path) -> None:
    (linked / "to-above").unlink()
    folder = FolderRecord(str(linked), follow_links=True)
    expected = ["b.jpg", "in/a.jpg", "to-out/c.jpg", "to-out/deep/d.jpg", "zz.jpg"]
    assert found(folder) == expected
    (linked / "to-out2").symlink_to(linked.parent / "out")
    assert found(folder) == expected
    for path in expected:
        assert is_in_scope(folder, str(linked / path), is_folder=False)
    assert is_in_scope(folder, str(linked / "to-out" / "deep"), is_folder=True)
    for path in ("to-in", "to-self", "to-nowhere/x", "to-out/back"):
        if not path.startswith("to-nowhere"):
            assert not is_in_scope(folder, str(linked / path / "a.jpg"), is_folder=False), path


def test_a_link_to_a_folder_above_ends_and_gives_no_file_twice(linked: Path) -> None:
    paths = found(FolderRecord(str(linked), follow_links=True))
    real = [os.path.realpath(linked / path) for path in paths if path != "zz.jpg"]
    assert len(set(real)) == len(real)
    assert {Path(path).name for path in real} == {f"{name}.jpg" for name in "abcde"}


def test_a_link_is_not_followed_from_a_folder_that_is_not_recursive(linked: Path) -> None:
    folder = FolderRecord(str(linked), recursive=False, follow_links=True)
    assert found(folder) == ["b.jpg", "zz.jpg"]


def test_a_folder_that_is_a_link_itself_is_walked_under_its_own_name(tmp_path: Path) -> None:
    make(tmp_path, "real/x/a.jpg")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    assert [item.path for item in walk(FolderRecord(str(link)))] == [str(link / "x" / "a.jpg")]
    folder = FolderRecord(str(link), follow_links=True)
    assert found(folder) == ["x/a.jpg"]
    assert is_in_scope(folder, str(link / "x" / "a.jpg"), is_folder=False)


def test_a_link_of_a_pictures_name_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    make(tmp_path, "out/a.jpg")
    root = tmp_path / "root"
    root.mkdir()
    (root / "folder.jpg").symlink_to(tmp_path / "out")
    (root / "dead.jpg").symlink_to(tmp_path / "nowhere")
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    items = {Path(item.path).name: item for item in walk(FolderRecord(str(root)))}
    assert set(items) == {"dead.jpg", "loop.jpg"}
    assert isinstance(items["dead.jpg"], Unlisted)
    assert isinstance(items["loop.jpg"], Unlisted)
    assert items["loop.jpg"].is_file
    assert found(FolderRecord(str(root / "folder.jpg"))) == ["a.jpg"]


# -- what is none of the user's ------------------------------------------------------------------


def test_the_librarys_own_folder_inside_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "library/thumbnails/x.webp", "library.jpg", "library2/b.jpg")
    own = (str(tmp_path / "library"),)
    assert found(tmp_path, leave_out=own) == ["a.jpg", "library.jpg", "library2/b.jpg"]


# -- where to start, and what to say of each -----------------------------------------------------


def test_a_walk_from_a_folder_below_keeps_the_rules_from_above(tmp_path: Path) -> None:
    make(tmp_path, "a/b/x.jpg", "a/b/y.jpg", "a/b/z.png", "a/c.jpg")
    (tmp_path / "a" / IGNORE_FILE).write_text("y.jpg\n")
    folder = FolderRecord(str(tmp_path), exclude=("*.png",))
    assert found(folder, start=str(tmp_path / "a" / "b")) == ["a/b/x.jpg"]
    assert found(folder, start=str(tmp_path)) == ["a/b/x.jpg", "a/c.jpg"]


def test_a_start_that_is_gone_is_not_an_empty_folder(tmp_path: Path) -> None:
    (item,) = walk(FolderRecord(str(tmp_path)), start=str(tmp_path / "gone"))
    assert isinstance(item, Unlisted)
    assert not item.is_file


def test_a_found_file_has_what_tells_whether_it_was_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    os.utime(path, ns=(5, 7))
    (item,) = walk(FolderRecord(str(tmp_path)))
    assert isinstance(item, Found)
    status = path.stat()
    assert (item.stat.size, item.stat.mtime_ns) == (5, 7)
    assert (item.stat.inode, item.stat.device) == (status.st_ino, status.st_dev)
    assert not item.alone


def test_a_still_has_the_film_beside_it(tmp_path: Path) -> None:
    make(tmp_path, "a.HEIC", "a.mov", "b.jpg", "b.MP4", "c.png", "c.mov", "d.jpg", "x/d.mov")
    make(tmp_path, "e.jpg", "e.m4v", "e.mov", "lone.mov")
    items = {Path(item.path).name: item for item in walk(FolderRecord(str(tmp_path)))}
    films = {name: item.video for name, item in items.items() if isinstance(item, Found)}
    assert {name: film and Path(film).name for name, film in films.items()} == {
        "a.HEIC": "a.mov",
        "b.jpg": "b.MP4",
        "c.png": None,
        "d.jpg": None,
        "e.jpg": "e.m4v",
    }
