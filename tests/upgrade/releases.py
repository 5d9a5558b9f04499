"""Unpacks programs of other releases from their commits in the repository and runs them."""

import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from eventstore.window import FIRST_WITH_FEATURES, REVISION

ROOT = Path(__file__).parents[2]
LOCK_FILE = "requirements.lock"
NEXT_REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "9999", "{before}"
serves_from = "{serves_from}"


def upgrade():
    op.add_column("es_stream", sa.Column("more", sa.Text), schema="log")
"""


@dataclass(frozen=True, slots=True)
class Release:
    """A commit whose program knows revisions up to `schema`."""

    commit: str
    schema: str

    @property
    def heeds_features(self) -> bool:
        """True if its program says by name what it lacks; an older one asks for exactly its own schema."""
        return self.schema >= FIRST_WITH_FEATURES


def _named(kind: str) -> list[Release]:
    entries = tomllib.loads((Path(__file__).parent / "releases.toml").read_text())[kind]
    return [Release(each["commit"], each["schema"]) for each in entries]


def earlier_releases() -> list[Release]:
    """The releases that must work beside the present program, the oldest first."""
    return _named("release")


def makers_of_logs() -> list[Release]:
    """The programs that made the stored logs, in order."""
    return _named("log")


@dataclass(frozen=True, slots=True)
class Program:
    """An unpacked release and the interpreter that has what it requires."""

    tree: Path
    python: str

    def start(self, *arguments: str, log: Path, **variables: str) -> "subprocess.Popen[bytes]":
        """Start `tagtrail` with these arguments and TAGTRAIL_ variables; what it says goes to the log."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [self.python, "-m", "tagtrail", *arguments],
                env=self._environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.tree,
            )

    def run(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [self.python, "-m", "tagtrail", *arguments],
            env=self._environment(variables),
            capture_output=True,
            text=True,
            cwd=self.tree,
            timeout=120,
            check=False,
        )

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        # This release comes before installed packages, because the present program may be installed as editable.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAGTRAIL_")}
        return inherited | {"PYTHONPATH": str(self.tree)} | variables


def unpack(release: Release, folder: Path) -> Program:
    """Unpack the program of a release into a folder.

    If its requirements differ from the present ones, they are installed into an environment of its own.
    """
    tree = folder / release.commit
    tree.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", release.commit], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    # The program asks for its version in the metadata that an installation would leave.
    version = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"]
    installed = tree / f"tagtrail-{version}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tagtrail\nVersion: {version}\n")
    if (tree / LOCK_FILE).read_text() == (ROOT / LOCK_FILE).read_text():
        return Program(tree, sys.executable)
    environment = folder / f"{release.commit}-environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = str(environment / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", tree / LOCK_FILE], check=True)
    return Program(tree, python)


def present() -> Program:
    """The program of this checkout."""
    return Program(ROOT, sys.executable)


def next_release(folder: Path, serves_from: str) -> Program:
    """The present program with one more revision, 9999, which lets programs serve that know `serves_from`."""
    tree = folder / "next"
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    for each in packages:
        name = each.rstrip("*")
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    window = tree / "eventstore" / "window.py"
    window.write_text(window.read_text() + '\nREVISION = "9999"\n')
    (tree / "eventstore" / "migrations" / "versions" / "r9999_next.py").write_text(
        NEXT_REVISION.format(before=REVISION, serves_from=serves_from)
    )
    return Program(tree, sys.executable)
