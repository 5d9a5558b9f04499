"""Docstrings open with the thing that they tell of, or with a verb, and not with a clause."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = (
    "tagtrail",
    "command_api",
    "query_api",
    "projections",
    "protocol",
    "eventstore",
    "blobstore",
    "domain",
    "bench",
    "scripts",
    "tests",
)
# A clause in the place of a subject, or of a noun that a reader could look for.
_CLAUSE = re.compile(r"(What|Whatever|Whether|Who|Whoever|That|How|Where|When|Which|Of)\b")


def test_no_docstring_opens_with_a_clause() -> None:
    """A reader who skims only the first words sees what each thing is or does."""
    found = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        for text in _docstrings(path)
        if _CLAUSE.match(text)
    ]
    assert found == []


def _docstrings(path: Path) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    with_text = (
        ast.get_docstring(each) for each in nodes if isinstance(each, ast.Module | ast.ClassDef | ast.FunctionDef)
    )
    return [each for each in with_text if each]
