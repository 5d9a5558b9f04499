"""Finds and runs outside programs; a test whose program is absent is skipped, or fails under CI."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
RUN_SECONDS_MAX = 180


def _load_tools() -> ModuleType:
    """Load scripts/tools.py, which is a program and no package, so that versions and paths stand in one place."""
    name = "tagtrail_scripts_tools"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, REPOSITORY_ROOT / "scripts" / "tools.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tools = _load_tools()


def in_ci() -> bool:
    """True if CI=true, where a test fails if its program is absent."""
    return os.environ.get("CI", "").lower() == "true"


def missing(reason: str) -> NoReturn:
    """End the test because something it needs is absent: skipped, or failed under CI."""
    if in_ci():
        pytest.fail(f"{reason} (a failure because CI=true)", pytrace=False)
    pytest.skip(reason)


def find(name: str) -> Path | None:
    """Path of the pinned or installed program, None when it is absent."""
    found = tools.find_tool(name)
    assert found is None or isinstance(found, Path)
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer of a program."""

    command: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output, decoded and stripped."""
        return self.stdout.decode(errors="replace").strip()

    @property
    def everything(self) -> str:
        """Both outputs, for messages and for clients that print results on standard error."""
        return (self.stdout + self.stderr).decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """Standard output by lines, without empty ones."""
        return [line for line in self.text.splitlines() if line.strip()]


@dataclass(frozen=True, slots=True)
class Program:
    """One client program with the environment and the arguments that every call takes."""

    path: Path
    environment: Mapping[str, str]
    leading: tuple[str, ...] = ()

    def attempt(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        seconds_max: float = RUN_SECONDS_MAX,
    ) -> Outcome:
        """Run and answer the outcome whatever the exit code; a run that takes too long fails the test."""
        command = (str(self.path), *self.leading, *(str(argument) for argument in arguments))
        try:
            done = subprocess.run(
                command,
                env=dict(self.environment),
                cwd=cwd,
                input=stdin if stdin is not None else b"",
                capture_output=True,
                timeout=seconds_max,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            output = (expired.stdout or b"") + (expired.stderr or b"")
            pytest.fail(f"{' '.join(command)}: not finished after {seconds_max} s\n{output.decode(errors='replace')}")
        return Outcome(command, done.returncode, done.stdout, done.stderr)

    def __call__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        seconds_max: float = RUN_SECONDS_MAX,
    ) -> Outcome:
        """Run and answer the outcome; a non-zero exit code fails the test with what the program printed."""
        outcome = self.attempt(*arguments, cwd=cwd, stdin=stdin, seconds_max=seconds_max)
        assert outcome.code == 0, f"{' '.join(outcome.command)}: exit {outcome.code}\n{outcome.everything}"
        return outcome


def private_environment(home: Path) -> dict[str, str]:
    """An environment whose home, configuration and caches are the test's own: no credential or setting leaks in."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    system = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    runtime = home / "run"
    runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Podman fails without the file once DOCKER_CONFIG names its folder.
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker" / "config.json").write_text("{}")
    return {
        **kept,
        "PATH": f"{kept.get('PATH', '')}:{system}",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local"),
        "XDG_RUNTIME_DIR": str(runtime),
        "DOCKER_CONFIG": str(home / ".docker"),
        "NO_PROXY": "127.0.0.1,localhost",
    }


def program(name: str, home: Path, *leading: str) -> Program:
    """The named program, or the end of the test when it is absent."""
    path = find(name)
    if path is None:
        missing(f"{name} is absent; run: python3 scripts/tools.py install {name}")
    return Program(path, private_environment(home), leading)
