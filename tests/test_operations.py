"""The pages that users follow on a cluster: every command in them is one that this program takes, and none of them is dangerous."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import REPO, program, run

PAGES = [REPO / "docs" / name for name in ["operations.md", "cluster.md"]]
FENCE = re.compile(r"^```(?:console|bash)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
# Code in a sentence that begins with the command.
INLINE = re.compile(r"`(hlrp [^`]+)`")
# Programs that print the help of a stage are started by `hlrp` as they are.
SHELL = {"|", "&&", ";", ">", "2>&1"}


def commands(page: Path) -> list[str]:
    """Every command of `hlrp` on a page: lines of code blocks, joined where they continue, and code in sentences."""
    text = page.read_text() if page.exists() else ""
    indented = re.findall(r"^    (hlrp .*)$", text.replace("\\\n", " "), flags=re.MULTILINE)
    lines = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines = [line.removeprefix("$ ").strip() for line in lines]
    return sorted({line for line in [*lines, *indented, *INLINE.findall(text)] if line.startswith("hlrp ")})


def words(command: str) -> list[str]:
    """The arguments of `hlrp`, without what a shell does with its output."""
    arguments = shlex.split(command, comments=True)[1:]
    end = next((index for index, word in enumerate(arguments) if word in SHELL), len(arguments))
    return arguments[:end]


ALL = sorted({(page.name, command) for page in PAGES for command in commands(page)})


def test_both_pages_have_commands():
    assert {name for name, _ in ALL} == {page.name for page in PAGES} and len(ALL) > 30


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{page}: {command}" for page, command in ALL])
def test_a_command_of_the_pages_is_one_that_the_program_takes(page, command):
    """Options and arguments in front of `--help` are read first, so an unknown one is an error."""
    result = run([program("hlrp"), *words(command), "--help"])
    assert result.returncode == 0, f"{page}: {command}\n{result.stderr}"
    assert "Usage:" in result.stdout


def overrides(command: str) -> list[str]:
    known = [word for word in words(command) if "=" in word and not word.startswith("-")]
    return known if not any("<" in word for word in known) else []


COMPOSED = sorted({tuple(found) for _, command in ALL if (found := overrides(command)) and " diff " not in command})


@pytest.mark.parametrize("found", COMPOSED, ids=" ".join)
def test_the_overrides_of_the_pages_compose(found):
    result = run([program("hlrp"), "config", "show", *found])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_deletes_or_cancels_everything(page):
    dangerous = (
        r"\brm\s+-|\brm\b.*\*|scancel\s+(--me|-u|--user)|scancel\b.*\$\(|find\b.*-delete|jobs cancel\s+(--all|all\b)"
    )
    everywhere = [page, REPO / "README.md", *(REPO / "docs").glob("*.md")]
    assert [(one.name, found) for one in everywhere for found in re.findall(dangerous, one.read_text())] == []


def test_every_rule_of_the_notes_is_there_once_in_order():
    rows = re.findall(r"^\| (S\d+(?:, S\d+)*) \|", PAGES[0].read_text(), flags=re.MULTILINE)
    numbers = [int(number[1:]) for row in rows for number in row.split(", ")]
    assert sorted(numbers) == list(range(1, 100))


def test_every_rule_names_what_shows_it():
    """A command, a test or a file of tests; or it says that it is for people."""
    rows = re.findall(r"^\| (S\d.*?) \|.*?\| (.*) \|$", PAGES[0].read_text(), flags=re.MULTILINE)
    shown = r"`(hlrp |make |cargo |tests/|test_[a-z]|[a-z]+(_[a-z0-9]+){4,}`)|for people|\(\w+\.md\)"
    assert len(rows) > 60
    assert [number for number, here in rows if not re.search(shown, here)] == []


def test_the_tests_and_files_that_the_page_names_exist():
    text = PAGES[0].read_text()
    sources = "\n".join(path.read_text() for path in [*REPO.glob("tests/*.py"), *REPO.glob("rust/*/tests/**/*.rs")])
    named = re.findall(r"`(test_[a-z_0-9]+|[a-z]+(?:_[a-z0-9]+){4,})`", text)
    assert len(named) > 8
    assert [name for name in named if not re.search(rf"(def|fn) {name}\b", sources)] == []
    paths = re.findall(r"`((?:tests|rust|config|containers|scripts|docs)/[\w./-]+)`", text)
    links = [str((REPO / "docs" / link).resolve()) for link in re.findall(r"\]\(([^)#]+)\)", text)]
    assert [
        path for path in [*paths, *links] if not (REPO / path).exists() and path != "config/user_config/local.yaml"
    ] == []
