"""`searchlib vectors`, as a person and as a program see it."""

import json
import os
import re
import shutil

import numpy as np
import pytest

from searchlib.images import load


def plain(output: bytes) -> str:
    """The output without what no two runs share."""
    return re.sub(r" in \d+\.\d s", " in S s", os.fsdecode(output))


@pytest.fixture
def phone(photos, encoder, tmp_path):
    """JSON lines with the vectors of the eight photographs, each turned to a cosine."""

    def write(*cosines: float, model: bool = True):
        header = {"searchlib": "vectors", "version": 1, "identity": encoder.identity}
        lines = [json.dumps(header)] if model else []
        files = sorted(photos.iterdir())
        for path, cosine in zip(files, cosines or [1.0] * len(files), strict=False):
            vector = encoder.embed(load(path, min_side=encoder.min_side).pixels)
            other = np.random.default_rng(1).normal(size=len(vector))
            other -= other @ vector * vector
            other /= np.linalg.norm(other)
            turned = cosine * vector + np.sqrt(1 - cosine**2) * other
            lines.append(json.dumps({"path": path.name, "vector": turned.tolist()}))
        (tmp_path / "phone.jsonl").write_text("\n".join(lines))
        return tmp_path / "phone.jsonl"

    return write


def test_a_phones_vectors_are_imported_and_the_drift_is_said_in_words(
    run, photos, phone, library_folder
):
    where = ["--root", photos, "--library", library_folder]
    done = run("vectors", "import", phone(), *where)
    assert plain(done.stdout) == (
        "stored 8 of 8 vectors of tiny-vit-5m (8 for images that were not in the library), kept 0 "
        "that were there, unmatched 0 in S s\n"
        "drift: on 8 images, 8 of them embedded for this, the cosine to the vectors of "
        "tiny-vit-5m here is 1.0000 on average, 1.0000 or more for 95 of 100, 1.0000 at least; "
        "they agree and can be searched together\n"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    again = run("vectors", "import", phone(), *where, "--verify", "0")
    assert plain(again.stdout).startswith("stored 0 of 8 vectors of tiny-vit-5m, kept 8 that were")
    found = run("search", photos / "cat.jpg", "-k1", "--library", library_folder)
    assert plain(found.stdout) == f"1.000  {photos}/cat.jpg\n"


def test_vectors_that_drift_are_listed(run, fill, photos, phone, library_folder):
    fill(photos)
    where = ["--root", photos, "--library", library_folder]
    done = run("vectors", "import", phone(1, 1, 0.98, 1, 1, 1, 1, 1), *where)
    assert plain(done.stderr) == "drift in row 3, cat.jpg: cosine 0.980\n"
    assert "they agree but for 1 below 0.99: other pictures" in plain(done.stdout)
    done = run("vectors", "import", phone(*[0.95] * 8), *where)
    assert "8 are below 0.99, so scores across them are off" in plain(done.stdout)
    assert done.returncode == 0
    done = run("vectors", "import", phone(*[0.95] * 8), *where, "--json")
    drift = json.loads(done.stdout)["drift"]
    assert (drift["count"], drift["below"], len(drift["rows"])) == (8, 8, 8)
    assert drift["rows"][2] == {
        "row": 3,
        "name": "cat.jpg",
        "cosine": pytest.approx(0.95, abs=1e-3),
    }


def test_vectors_of_nobody_are_refused_and_the_way_out_is_named(run, photos, phone, library_folder):
    where = ["--root", photos, "--library", library_folder]
    done = run("vectors", "import", phone(*[0.3] * 8), *where)
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(
        r"searchlib: \S+phone\.jsonl: these vectors are not of this model: .* --verify 0 .*\n",
        plain(done.stderr),
    )
    done = run("vectors", "import", phone(*[0.3] * 8), *where, "--verify", "0")
    assert done.returncode == 0
    assert "drift: no image could be compared" in plain(done.stdout)


def test_some_unmatched_rows_are_3_and_only_such_are_1(run, photos, phone, library_folder):
    where = ["--root", photos, "--library", library_folder]
    file = phone()
    (photos / "cat.jpg").unlink()
    done = run("vectors", "import", file, *where)
    assert plain(done.stderr) == "unmatched row 3, cat.jpg: no such file\n"
    assert plain(done.stdout).startswith("stored 7 of 8 vectors of tiny-vit-5m (7 for images")
    assert done.returncode == 3
    done = run("vectors", "import", file, *where, "--json")
    report = json.loads(done.stdout)
    assert (report["kept"], report["unmatched"], done.returncode) == (7, 1, 3)
    assert report["unmatched_rows"] == [{"row": 3, "name": "cat.jpg", "reason": "no such file"}]
    shutil.rmtree(photos)
    photos.mkdir()
    done = run(
        "vectors", "import", file, "--root", photos, "--library", library_folder.parent / "b"
    )
    assert done.returncode == 1
    assert plain(done.stdout).startswith("stored 0 of 8 vectors")


def test_without_a_model_nothing_is_imported_until_it_is_named(run, photos, phone, library_folder):
    where = ["--root", photos, "--library", library_folder, "--verify", "0"]
    done = run("vectors", "import", phone(model=False), *where)
    assert done.returncode == 2
    assert "nothing says which model these vectors are of" in plain(done.stderr)
    done = run("vectors", "import", phone(model=False), *where, "--model", "tiny-vit-5m")
    assert done.returncode == 0


def test_an_export_goes_into_another_library(run, filled_library, tmp_path):
    out = tmp_path / "out.npy"
    done = run("vectors", "export", out, "--library", filled_library)
    assert re.fullmatch(
        rf"wrote 8 vectors of tiny-vit-5m \(320 dimensions, \w{{12}}\) to {re.escape(str(out))} "
        rf"and {re.escape(str(tmp_path))}/out\.jsonl: \d+\.\d kB in S s\n",
        plain(done.stdout),
    )
    assert (done.returncode, done.stderr) == (0, b"")
    done = run("vectors", "import", out, "--library", tmp_path / "other", "--json")
    report = json.loads(done.stdout)
    assert (report["stored"], report["drift"]["verified"], done.returncode) == (8, 8, 0)
    assert report["file"] == str(out)


def test_what_is_left_out_of_an_export_is_said(run, fill, photos, library_folder, tmp_path):
    fill(photos)
    (photos / "cat.jpg").unlink()
    fill(photos)
    out = tmp_path / "out.jsonl"
    done = run("vectors", "export", out, "--library", library_folder)
    assert plain(done.stderr) == (
        "left out 1 whose images have no file in place; --include-missing writes them too\n"
    )
    done = run("vectors", "export", out, "--library", library_folder, "--include-missing", "--json")
    report = json.loads(done.stdout)
    assert (report["count"], report["left_out"], report["files"]) == (8, 0, [str(out)])


def test_an_empty_library_exports_nothing_and_one_that_is_not_there_is_said(
    run, tmp_path, library_folder
):
    done = run("vectors", "export", tmp_path / "out.npy", "--library", library_folder)
    assert done.returncode == 2
    assert "there is no library here" in plain(done.stderr)
    run("add", tmp_path / "nothing", "--library", library_folder)
    done = run("vectors", "export", tmp_path / "out.npy", "--library", library_folder)
    assert done.returncode == 1
    assert plain(done.stdout).startswith("wrote 0 vectors")


def test_a_broken_file_is_one_line(run, library_folder, tmp_path):
    (tmp_path / "v.jsonl").write_text('{"searchlib": "vectors", "ver\n')
    done = run("vectors", "import", tmp_path / "v.jsonl", "--library", library_folder)
    assert done.returncode == 2
    assert plain(done.stderr).startswith(f"searchlib: {tmp_path}/v.jsonl: line 1: this is not JSON")
    assert plain(done.stderr).count("\n") == 1


def test_names_that_are_no_text_are_shown_and_survive(run, photos, phone, library_folder, tmp_path):
    file = phone(1)
    line = file.read_text().replace("astronaut.jpg", "caf\\udce9.jpg")
    file.write_text(line)
    where = ["--root", photos, "--library", library_folder]
    done = run("vectors", "import", file, *where)
    assert plain(done.stderr) == "unmatched row 1, caf\\xe9.jpg: no such file\n"
    os.rename(photos / "astronaut.jpg", os.fsencode(photos) + b"/caf\xe9.jpg")  # noqa: PTH104
    assert run("vectors", "import", file, *where).returncode == 0
    run("vectors", "export", tmp_path / "out.jsonl", "--library", library_folder)
    rows = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(rows[1])["paths"] == [f"{photos}/caf\udce9.jpg"]


def test_progress_comes_in_plain_lines_without_a_terminal(
    photos, phone, library_folder, environment, monkeypatch
):
    from click.testing import CliRunner

    from searchlib.cli import main

    monkeypatch.setattr("searchlib.cli.progress._LINE_EVERY_SECONDS", 0)
    arguments = ["vectors", "import", phone(), "--root", photos, "--library", library_folder]
    done = CliRunner().invoke(main, [*map(str, arguments), "--verify", "0"], env=environment)
    assert done.exit_code == 0
    lines = done.stderr.splitlines()
    assert lines[:2] == ["checking: 0 rows", "checking: 8 rows"]
    assert re.fullmatch(r"importing: 8 of 8 rows, \d+\.\d rows/s, 0 s left", lines[-1])
