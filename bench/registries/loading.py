"""Builds the load program (bench/load) once for each version of its source, runs it and reads its result."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scripts.tools import GoSource, ToolUnavailableError, install_go_tool

LOAD = GoSource("bench-load", Path(__file__).parent.parent / "load")
# Seconds beyond the duration of the load after which the program counts as hung.
EXTRA_S = 600


class LoadFailed(Exception):
    """The load program could not be built or ended with an error; the message has its words."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of one run of the load program; see `result` in bench/load/measure.go."""

    done: int
    errors: int
    seconds: float
    rate: float
    bytes: int
    bytes_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    load_cpu_s: float
    first_error: str = ""
    other_rate: float = 0.0


def build() -> Path:
    """Build the load program unless this version of it was built; answers its path. Raises LoadFailed."""
    try:
        install_go_tool(LOAD)
    except ToolUnavailableError as problem:
        raise LoadFailed(str(problem)) from problem
    return LOAD.path


def run(program: Path, address: str, arguments: tuple[str, ...], seconds: float) -> LoadResult:
    """Put load on the registry at an address for so many seconds. Raises LoadFailed."""
    command = [str(program), arguments[0], "-address", address, "-duration", f"{seconds}s", *arguments[1:]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + EXTRA_S)
    except subprocess.TimeoutExpired as problem:
        raise LoadFailed(f"{' '.join(command)}: no end within {seconds + EXTRA_S:.0f} s") from problem
    if done.returncode:
        raise LoadFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return LoadResult(**json.loads(done.stdout))
