"""The README tells the truth about commands, dependencies and what is checked."""

import re
import tomllib
from pathlib import Path

import pytest

from searchlib.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements() -> list[str]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    build = PROJECT["build-system"]["requires"]
    return [*PROJECT["project"]["dependencies"], *build, *(r for extra in extras for r in extra)]


def test_every_dependency_is_named_with_its_reason() -> None:
    table = README[README.index("## Dependencies") :]
    for requirement in requirements():
        name = re.split(r"[<>=;\[ ]", requirement)[0]
        assert re.search(rf"\b{re.escape(name)}\b", table), name


def test_every_dependency_has_a_lower_bound() -> None:
    for requirement in requirements():
        assert ">=" in requirement or "==" in requirement, requirement


def test_the_runtime_is_the_one_that_the_module_is_built_with() -> None:
    pins = [r for r in requirements() if r.startswith("executorch")]
    assert len(pins) == 2
    assert len(set(pins)) == 1


@pytest.mark.parametrize("name", main.commands)
def test_every_command_is_in_the_table(name: str) -> None:
    assert f"| `searchlib {name}" in README


def test_the_checks_run_the_command_of_the_readme() -> None:
    command = re.search(r"```sh\n(.*pytest)\n```", README)
    assert command is not None
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command[1] in checks.replace("--quiet ", "")


def test_the_project_speaks_of_no_machine() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("searchlib/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(home|root|tmp|work)/", text), path
