"""Fixtures of the client tests: the registry in three modes, the programs, a container engine, fresh names."""

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .engine import Engine, running_engine, unmount_below
from .programs import Program, missing, program
from .wire import Registry

MODES = {
    "projector": "server",
    "no-projector": "server_without_projector",
    "jittery-projector": "server_with_jittery_projector",
    "kafka": "server_with_kafka",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--all-clients`` (or TAGTRAIL_ALL_CLIENTS=1) for clients that take minutes to build."""
    parser.addoption("--all-clients", action="store_true", default=False, help="also helm, cosign, ctr, podman 5 ...")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker by which pytest-xdist keeps tests in one process, for runs without that plugin."""
    config.addinivalue_line("markers", "xdist_group(name): tests of one group run in one process")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of slow-to-build clients unless they are asked for."""
    asked = config.getoption("--all-clients", default=False) or os.environ.get("TAGTRAIL_ALL_CLIENTS") == "1"
    if asked:
        return
    left_out = [item for item in items if item.get_closest_marker("allclients")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _registry(request: pytest.FixtureRequest, mode: str) -> Registry:
    external = os.environ.get("TAGTRAIL_TEST_REGISTRY")
    if external:
        if mode != "projector":
            pytest.skip("a registry named by TAGTRAIL_TEST_REGISTRY has one mode")
        return Registry(external)
    return Registry(request.getfixturevalue(MODES[mode]).host)


@pytest.fixture(scope="session")
def registry(request: pytest.FixtureRequest) -> Registry:
    """The registry under test: ours, or the one that TAGTRAIL_TEST_REGISTRY=host:port names."""
    return _registry(request, "projector")


@pytest.fixture(params=list(MODES))
def registry_in_each_mode(request: pytest.FixtureRequest) -> Registry:
    """The registry with its projector running, not running, and paused and resumed at random."""
    return _registry(request, request.param)


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository name that no other test and no earlier run has used."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60]
    return f"clients/{readable}-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder for programs that keep settings or caches."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def client(home: Path) -> Callable[..., Program]:
    """Find a program by name; further arguments stand before those of every call."""

    def find(name: str, *leading: str) -> Program:
        return program(name, home, *leading)

    return find


@pytest.fixture
def crane(home: Path) -> Program:
    """crane, allowed plain HTTP."""
    return program("crane", home, "--insecure")


@pytest.fixture
def skopeo(home: Path) -> Program:
    """skopeo, which needs no trust policy of the machine."""
    return program("skopeo", home, "--insecure-policy")


@pytest.fixture
def oras(home: Path) -> Program:
    """oras; plain HTTP is an option of each of its commands."""
    return program("oras", home)


@pytest.fixture
def regctl(home: Path, registry: Registry) -> Program:
    """regctl, told that the registry speaks plain HTTP."""
    found = program("regctl", home)
    found("registry", "set", "--skip-check", "--tls", "disabled", registry.host)
    return found


@pytest.fixture
def podman(home: Path) -> Iterator[Program]:
    """Podman with a store of its own; no kernel support for overlays needed."""
    # Podman refuses a run folder with a path of more than 50 characters, and the test's own folder has a longer one.
    store = Path(tempfile.mkdtemp(prefix="ttp-", dir="/tmp"))
    found = program(
        "podman",
        home,
        f"--root={store}/root",
        f"--runroot={store}/run",
        f"--tmpdir={store}/tmp",
        "--storage-driver=vfs",
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
    )
    try:
        answer = found.attempt("info")
        if answer.code != 0:
            missing(f"podman does not work here: {answer.everything[-500:]}")
        yield found
    finally:
        unmount_below(store)
        shutil.rmtree(store)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine of our own for the whole run."""
    with running_engine() as running:
        yield running
