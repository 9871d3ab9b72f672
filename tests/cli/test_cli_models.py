"""`searchlib models`, as a person runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

QUANTIZED = "clip-vit-base-patch32-image-quantized"
TEXT = "clip-vit-base-patch32-text"


@pytest.fixture
def models(run: Any, models_folder: Path) -> Callable[..., Any]:
    """Runs `searchlib models` with the models of this test."""

    def models(*arguments: str | Path, **env: str) -> Any:
        return run("models", *arguments, env={"SEARCHLIB_MODELS": str(models_folder), **env})

    return models


def test_models_are_listed_with_size_licence_and_state(models: Callable[..., Any]) -> None:
    done = models()
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.decode().splitlines()}
    assert "built in" in lines["tiny-vit-5m"]
    assert "320-d" in lines["tiny-vit-5m"]
    assert "11.3 MB" in lines["tiny-vit-5m"]
    for word in ("not downloaded", "512-d", "~96.4 MB", "MIT"):
        assert word in lines[QUANTIZED]
    assert TEXT in lines
    assert QUANTIZED in lines["clip"]


def test_models_as_json(models: Callable[..., Any]) -> None:
    listed = {each["name"]: each for each in json.loads(models("--json").stdout)}
    assert listed["tiny-vit-5m"]["state"] == "built in"
    assert len(listed["tiny-vit-5m"]["identity"]) == 64
    assert listed[QUANTIZED]["identity"] is None
    assert listed[TEXT]["kind"] == "text"


def test_clip_is_pulled_with_its_text_model_and_removed(
    models: Callable[..., Any], hub: Any
) -> None:
    done = models("pull", "clip", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    assert f"{QUANTIZED}: downloaded, 29.2 kB" in done.stdout.decode()
    assert f"{TEXT}: downloaded" in done.stdout.decode()
    assert len(hub.asked) == 3
    again = models("pull", "clip", HF_ENDPOINT=hub.url)
    assert f"{QUANTIZED}: is in place" in again.stdout.decode()
    assert len(hub.asked) == 3
    assert models("rm", QUANTIZED).returncode == 0
    assert models("rm", QUANTIZED).returncode == 1


def test_what_cannot_be_downloaded_is_said_in_a_line(models: Callable[..., Any], hub: Any) -> None:
    next(hub.folder.rglob("*int8.pte")).unlink()
    done = models("pull", QUANTIZED, HF_ENDPOINT=hub.url)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert "404" in line
    offline = models("pull", QUANTIZED, "--offline", HF_ENDPOINT=hub.url)
    assert offline.returncode == 2
    assert "downloads are switched off" in offline.stderr.decode()


@pytest.mark.parametrize("command", ["pull", "rm", "use"])
def test_an_unknown_model_is_said_with_the_known_ones(
    models: Callable[..., Any], command: str
) -> None:
    done = models(command, "no-such")
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert "there is no model 'no-such'; known are tiny-vit-5m" in line


def test_a_model_of_ones_own_is_added_used_and_left_again(
    models: Callable[..., Any],
    run: Any,
    make_card: Callable[..., Path],
    models_folder: Path,
    filled_library: Path,
    original_photos: Path,
) -> None:
    env = {"SEARCHLIB_MODELS": str(models_folder)}
    assert models("add", make_card()).returncode == 0
    used = models("use", "own", "--library", filled_library)
    assert used.returncode == 0, used.stderr
    assert b"uses own now: 8 images embedded" in used.stdout
    cat = original_photos / "cat.jpg"
    found = run("search", cat, "--library", filled_library, "--json", env=env)
    assert json.loads(found.stdout)["matches"][0]["path"] == str(cat)
    status = json.loads(run("status", "--library", filled_library, "--json", env=env).stdout)
    assert (status["model"], status["dimension"]) == ("own", 512)
    back = models("use", "tiny-vit-5m", "--library", filled_library, "--json")
    assert json.loads(back.stdout)["embedded"] == 0


def test_a_library_of_a_model_that_is_gone_says_which(
    models: Callable[..., Any],
    run: Any,
    make_card: Callable[..., Path],
    models_folder: Path,
    filled_library: Path,
    original_photos: Path,
) -> None:
    env = {"SEARCHLIB_MODELS": str(models_folder)}
    models("add", make_card())
    models("use", "own", "--library", filled_library)
    models("rm", "own")
    for arguments in (("search", original_photos / "cat.jpg"), ("add", original_photos)):
        done = run(*arguments, "--library", filled_library, env=env)
        assert done.returncode == 2
        (line,) = done.stderr.decode().splitlines()
        assert "uses the model own" in line
        assert "searchlib models" in line
    assert run("status", "--library", filled_library, env=env).returncode == 0


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("nan_picture.pte", "gave a vector of length nan"),
        ("pair.pte", "the model takes"),
        ("words.pte", "the model takes"),
    ],
)
def test_a_model_that_does_not_work_is_refused_in_a_line(
    models: Callable[..., Any], make_card: Callable[..., Path], file: str, words: str
) -> None:
    done = models("add", make_card(file))
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert words in line


def test_a_card_that_lacks_a_field_is_refused_by_its_name(
    models: Callable[..., Any], make_card: Callable[..., Path]
) -> None:
    path = make_card()
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("dimension"))
    path.write_text(text, encoding="utf-8")
    done = models("add", path)
    assert done.returncode == 2
    assert b"card.toml: dimension is missing" in done.stderr
