"""Import photographs into an app: with progress, a Cancel button, and what became of each file.

    python examples/import_into_app.py [FOLDER]...

The import runs in a thread of its own and sends messages to the user interface, which here is this
terminal. During the last folder the user presses Cancel, and then imports it again: that goes on
where it stopped. Without a FOLDER there are two of photographs that come with scikit-image. The
library of the app is the folder demo-app.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections import Counter
from pathlib import Path

import skimage.data
from PIL import Image, ImageOps

import searchlib
from searchlib import FileResult, Library, Progress, Report, SearchlibError

APP = Path("demo-app")
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins")
SIDE = 2000
PATIENCE_SECONDS = 0.2
BAR = 20


def make_albums(folder: Path) -> list[Path]:
    """Write two albums of twelve large photographs; gives their folders."""
    albums = [folder / "2023", folder / "2024"]
    for name in PHOTOGRAPHS:
        image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        image = ImageOps.contain(image, (SIDE, SIDE))
        for album, whole in zip(albums, (image, ImageOps.mirror(image)), strict=True):
            album.mkdir(parents=True, exist_ok=True)
            whole.save(album / f"{name}.jpg")
            whole.crop((0, 0, whole.width // 2, whole.height)).save(album / f"{name}-left.jpg")
    return albums


class Import(threading.Thread):
    """An import that runs beside the user interface.

    Attributes:
        cancel: set it to stop; what was imported by then stays.
        messages: what happens, at the end the report, or an error that a person can read.
    """

    def __init__(self, library: Library, folder: Path) -> None:
        super().__init__()
        self.cancel = threading.Event()
        self.messages: queue.Queue[Progress | FileResult | Report | SearchlibError] = queue.Queue()
        self._library = library
        self._folder = folder

    def run(self) -> None:
        tell = self.messages.put
        try:
            with self._library.adding(self._folder, cancel=self.cancel, on_progress=tell) as adding:
                for result in adding:  # each is stored by the time that it comes
                    tell(result)
            tell(adding.report)
        except SearchlibError as error:
            tell(error)


def bar(progress: Progress) -> str:
    """What a progress bar shows; a dialog would draw it over the one before."""
    if progress.total is None:
        return f"{progress.done} pictures found"
    filled = BAR * progress.done // max(progress.total, 1)
    skipped = f", {progress.skipped} skipped" if progress.skipped else ""
    return f"[{'#' * filled:.<{BAR}}] {progress.done} of {progress.total}{skipped}"


def import_folder(
    library: Library, folder: Path, added: Counter[str], *, impatient: bool = False
) -> Report:
    """The dialog of an import: shows the messages until the last one."""
    task = Import(library, folder)
    button = threading.Timer(PATIENCE_SECONDS, task.cancel.set)
    task.start()
    if impatient:
        button.start()
    while True:
        message = task.messages.get()
        if isinstance(message, Progress):
            print(f"{folder.name}: {bar(message)}")
        elif isinstance(message, FileResult):
            reason = "" if message.reason is None else f", {message.reason}"
            print(f"  {Path(message.path).name}: {message.outcome}{reason}")
            added[message.path] += message.outcome == "added"
        else:
            break
    task.join()
    button.cancel()
    if isinstance(message, SearchlibError):
        raise message
    state = "cancelled" if message.cancelled else "done"
    print(f"{folder.name}: {state}, {message.added} new, {message.unchanged} known")
    return message


def main() -> int:
    folders = [Path(name) for name in sys.argv[1:]] or make_albums(APP / "albums")
    added: Counter[str] = Counter()
    try:
        with searchlib.open_library(APP / "library") as library:
            reports = [import_folder(library, folder, added) for folder in folders[:-1]]
            import_folder(library, folders[-1], added, impatient=True)
            reports.append(import_folder(library, folders[-1], added))
    except SearchlibError as error:
        print(error, file=sys.stderr)
        return 2
    found = sum(report.found for report in reports)
    imported = found - sum(len(report.skipped) for report in reports)
    twice = sum(count > 1 for count in added.values())
    print(f"imported {imported} of {found}, {twice} twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
