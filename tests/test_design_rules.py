"""Rules that the code cites stand in docs/design, and the tests that they name exist."""

import ast
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = "tests/test_design_rules.py"
DESIGN = ROOT / "docs" / "design"
# Files that tools or other projects have made.
_FOREIGN = (".lock", ".gz", ".toml", ".go", ".yaml", ".yml")
_CITATION = re.compile(r"\(rules?: ([^()\n]*)(\)?)")
_TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
# A letter and a number, as private notes count their rules. S3 is the name of a service.
_PRIVATE_CODE = re.compile(r"(?<![%\w/.&`-])(?!S3\b)[SIDMUXTREG]\d{1,2}b?(?![\w-])")


@cache
def _sources() -> dict[str, str]:
    """Every text of ours, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    paths = (ROOT / each for each in listed if not each.endswith(_FOREIGN) and not each.startswith("docs/schemas/"))
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths if path.is_file()}


@cache
def _rules() -> dict[str, str]:
    """The text of each rule, by its name."""
    found: dict[str, str] = {}
    for page in sorted(DESIGN.glob("*.md")):
        _, *parts = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
        for part in parts:
            name, _, text = part.partition("\n")
            assert name not in found, f"two rules are called {name!r}"
            found[name] = text
    return found


@cache
def _tests_of(path: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(path.read_text())) if path.is_file() else ()
    return frozenset(each.name for each in nodes if isinstance(each, ast.FunctionDef))


def _cited(text: str) -> list[str]:
    return [name for names, _ in _CITATION.findall(text) for name in names.split("; ")]


def test_every_citation_leads_to_a_rule() -> None:
    """Each citation also stands on one line, so that a search for the rule's name finds it."""
    wrong = [
        f"{path}: {name}"
        for path, text in _sources().items()
        if path != OWN
        for names, end in _CITATION.findall(text)
        for name in names.split("; ")
        if name not in _rules() or not end
    ]
    assert wrong == []


def test_no_rule_is_cited_by_a_private_code() -> None:
    """A code such as (S1) explains nothing to a reader who does not have its list."""
    found = [
        f"{path}:{number}: {line.strip()}"
        for path, text in _sources().items()
        for number, line in enumerate(text.splitlines(), start=1)
        if path != OWN and _PRIVATE_CODE.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("name", sorted(_rules()))
def test_a_rule_names_tests_that_exist(name: str) -> None:
    """A reader sees in the rule which tests would catch its breach."""
    _, _, named = _rules()[name].partition("\nTests: ")
    tests = _TEST.findall(named)
    assert tests, "the rule names no test"
    # The line holds nothing but names of tests: one that is misspelt would otherwise be passed over.
    assert re.sub(r"[\s,]", "", _TEST.sub("", named)) == ""
    assert [f"{file}::{test}" for file, test in tests if test not in _tests_of(ROOT / "tests" / file)] == []


def test_the_checks_see_what_is_wrong() -> None:
    """Each of the patterns above matches what it is for."""
    assert _cited("Append a batch (rule: one lock).") == ["one lock"]
    assert _cited("(rules: one lock; no holes, no changes)") == ["one lock", "no holes, no changes"]
    assert Counter(map(bool, map(_PRIVATE_CODE.search, ("(" + "S12)", "rule " + "D4: kept")))) == {True: 2}
    assert not any(map(_PRIVATE_CODE.search, ("S3", "%D9%A3", "P50", "tags_s1_v3", "UTF-8")))
