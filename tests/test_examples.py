"""The examples do what they say; their figures are those of a plain count."""

from __future__ import annotations

import importlib.util
import itertools
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    pytest.importorskip("matplotlib")
    name = "quality_report"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run(
    name: str, *arguments: str | Path, cwd: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_every_original_of_the_demo_is_found(tmp_path: Path, environment: dict[str, str]) -> None:
    done = run("reverse_lookup.py", "demo", cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == f"found {len(lines)} of {len(lines)}"
    strangers = [line for line in lines if "not in this library" in line]
    assert [line.partition(".")[0] for line in strangers] == ["clock", "colorwheel", "logo"]


def test_a_picture_that_cannot_be_looked_up_does_not_stop_the_others(
    photos: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    with Image.open(photos / "coffee.jpg") as image:
        image.resize((150, 100)).save(tmp_path / "small.jpg")
    done = run(
        *("reverse_lookup.py", photos, "missing.jpg", "small.jpg"),
        cwd=tmp_path,
        environment=environment,
    )
    assert done.returncode == 3
    assert done.stdout.startswith(f"small.jpg: perhaps {photos / 'coffee.jpg'} (score 0.")
    assert "missing.jpg" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_import_of_an_app_shows_a_bar_and_goes_on_after_a_cancel(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = run("import_into_app.py", cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "2023: [####################] 12 of 12\n" in done.stdout
    assert "2024: done" in done.stdout
    assert done.stdout.endswith("imported 24 of 24, 0 twice\n")


def test_the_demo_of_the_report_writes_a_plot_and_its_figures(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    pytest.importorskip("matplotlib")
    done = run("quality_report.py", "demo", cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("66 pictures of 10 labels; 2 ask nothing")
    assert "; the plot is demo-report/report.png\n" in done.stdout
    with Image.open(tmp_path / "demo-report" / "report.png") as plot:
        assert plot.width > plot.height > 400
        assert len(plot.convert("RGB").getcolors(plot.width * plot.height) or []) > 50


def test_a_folder_without_labels_is_refused_in_one_line(
    report: ModuleType,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["quality_report.py", str(photos)])
    assert report.main() == 2
    assert capsys.readouterr().err == "there are no two pictures below a folder that is a label\n"


def test_a_label_is_the_folder_and_a_picture_in_two_has_both(
    report: ModuleType, photos: Path, tmp_path: Path
) -> None:
    labelled = tmp_path / "labelled"
    for place in ("a/coffee.jpg", "a/deep/below/cat.jpg", "b/coffee.jpg", "rocket.jpg"):
        (labelled / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / Path(place).name, labelled / place)
    vectors, labels = report.embed(labelled, tmp_path, "tiny-vit-5m")
    assert sorted(labels, key=len) == [frozenset("a"), frozenset("ab")]
    assert vectors.shape == (2, 320)
    assert report.label_of(f"{tmp_path}/elsewhere/a/x.jpg", labelled) is None


DIRECTIONS = [(math.cos(math.pi * n / 6), math.sin(math.pi * n / 6)) for n in range(12)]
LABELS = [frozenset(names) for names in ("a", "b", "ab", "c")]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(DIRECTIONS), st.sampled_from(LABELS)), min_size=2, max_size=6
    ),
    st.integers(1, 8),
    st.sampled_from([1, 2, 128]),
)
def test_the_figures_are_those_of_a_plain_count_over_all_orders_of_ties(
    report: ModuleType,
    pictures: list[tuple[tuple[float, float], frozenset[str]]],
    k: int,
    block: int,
) -> None:
    vectors = np.array([vector for vector, _ in pictures], np.float32)
    labels = [label for _, label in pictures]
    # Blocks of any size give the same; a fixture of a function cannot be reset for each example.
    report.BLOCK = block  # type: ignore[attr-defined]
    answers = [
        [
            (round(float(vectors[i] @ vectors[j]), 6), bool(labels[i] & labels[j]))
            for j in range(len(labels))
            if j != i
        ]
        for i in range(len(labels))
    ]
    asked = [of for of in answers if any(right for _, right in of)]
    if not asked:
        with pytest.raises(ValueError, match="no label has two"):
            report.measure(vectors, labels, k)
        return
    quality = report.measure(vectors, labels, k)
    k = min(k, len(labels) - 1)
    assert quality.questions == len(asked)
    expected = [np.mean([figures(order, k) for order in orders(of)], axis=0) for of in asked]
    average, *others = np.mean(expected, axis=0)
    assert quality.average_precision == pytest.approx(average)
    assert quality.precision == pytest.approx(others[:k])
    assert quality.recall == pytest.approx(others[k:])

    pairs = [pair for of in answers for pair in of]
    for at in range(0, len(quality.thresholds), 50):
        good = [right for score, right in pairs if score >= quality.thresholds[at]]
        precision = sum(good) / len(good) if good else math.nan
        assert quality.precision_above[at] == pytest.approx(precision, nan_ok=True)
        rights = sum(right for _, right in pairs)
        assert quality.recall_above[at] == pytest.approx(sum(good) / rights)


def orders(answers: list[tuple[float, bool]]) -> Iterator[list[bool]]:
    """Whether each answer is right, in every order that the scores allow."""
    groups = [
        [right for score, right in answers if score == one]
        for one in sorted({score for score, _ in answers}, reverse=True)
    ]
    for choice in itertools.product(*map(itertools.permutations, groups)):
        yield [right for group in choice for right in group]


def figures(order: list[bool], k: int) -> list[float]:
    """Average precision, then precision and recall at 1 to k, by their definitions."""
    ranks = [rank for rank, right in enumerate(order, 1) if right]
    average = sum(n / rank for n, rank in enumerate(ranks, 1)) / len(ranks)
    precision = [sum(order[:at]) / at for at in range(1, k + 1)]
    recall = [sum(order[:at]) / len(ranks) for at in range(1, k + 1)]
    return [average, *precision, *recall]


def test_a_thousand_pictures_of_one_label_are_all_right(report: ModuleType) -> None:
    random = np.random.default_rng(1).normal(size=(1000, 8))
    vectors = (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float32)
    quality = report.measure(vectors, [frozenset("a")] * 1000, 10)
    assert quality.average_precision == pytest.approx(1)
    assert quality.precision == pytest.approx(np.ones(10))
    assert quality.recall == pytest.approx(np.arange(1, 11) / 999)
