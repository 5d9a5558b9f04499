"""scripts/tools.py builds a tool once however many ask, whole or not at all, and fails only where it is required."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .programs import REPOSITORY_ROOT

SCRIPT = REPOSITORY_ROOT / "scripts" / "tools.py"
FAKE_GO = """#!/bin/sh
# stands in for `go install MODULE@VERSION`: notes the call, builds a program of the module's last name
echo "$2" >> "$GO_CALLS"
[ -e "$GO_BROKEN" ] && { echo "no such module: $2"; exit 1; }
path=${2%@*}
printf '#!/bin/sh\\necho built\\n' > "$GOBIN/${path##*/}"
chmod +x "$GOBIN/${path##*/}"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An empty cache and a go that builds at once."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "go").write_text(FAKE_GO)
    (programs / "go").chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GO_CALLS": str(tmp_path / "calls"),
        "GO_BROKEN": str(tmp_path / "broken"),
    }


def _start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", str(SCRIPT), *arguments]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


def _run(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    process = _start(environment, *arguments)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def _calls(environment: dict[str, str]) -> list[str]:
    return Path(environment["GO_CALLS"]).read_text().split()


def test_a_tool_is_built_once_into_a_folder_of_its_version(environment: dict[str, str]) -> None:
    assert _run(environment, "install", "crane") == (0, _built(environment, "built"), "")
    assert _run(environment, "install", "crane") == (0, _built(environment, "already there"), "")
    assert _calls(environment) == ["github.com/google/go-containerregistry/cmd/crane@v0.22.1"]


def _built(environment: dict[str, str], outcome: str) -> str:
    path = Path(environment["XDG_CACHE_HOME"]) / "tagtrail-tools" / "crane-v0.22.1" / "crane"
    return f"crane v0.22.1: {outcome}: {path}\n"


def test_installs_at_once_build_once(environment: dict[str, str]) -> None:
    processes = [_start(environment, "install", "crane") for _ in range(4)]
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert len(_calls(environment)) == 1


def test_a_failed_build_leaves_nothing_and_says_why(environment: dict[str, str]) -> None:
    Path(environment["GO_BROKEN"]).touch()
    code, _, stderr = _run(environment, "install", "oras")
    assert code == 0, "an absent tool is an error only where it is required: tests skip without it"
    assert "oras v1.3.6: cannot be had" in stderr
    assert "no such module" in stderr
    assert [f.name for f in (Path(environment["XDG_CACHE_HOME"]) / "tagtrail-tools").iterdir()] == [".oras.lock"]


@pytest.mark.parametrize("required", [{"CI": "true"}, {}], ids=["by CI", "by option"])
def test_a_failed_build_is_an_error_where_it_is_required(environment: dict[str, str], required: dict[str, str]) -> None:
    Path(environment["GO_BROKEN"]).touch()
    option = [] if required else ["--require"]
    assert _run({**environment, **required}, "install", *option, "oras")[0] == 1


def test_an_unknown_tool_is_refused_with_the_known_ones(environment: dict[str, str]) -> None:
    code, _, stderr = _run(environment, "install", "oars")
    assert code == 2
    assert "unknown: oars; known: busybox, busybox-static, conformance, cosign, crane, " in stderr


def test_the_list_says_what_is_there_and_what_is_not(environment: dict[str, str]) -> None:
    _run(environment, "install", "regctl")
    code, stdout, _ = _run(environment, "list")
    by_name = {line.split()[0]: line for line in stdout.splitlines()}
    assert code == 0
    assert by_name["regctl"].endswith("/regctl-v0.11.7/regctl")
    assert by_name["helm"].endswith("absent (install --all)")
