#!/usr/bin/env python3
"""Install the outside programs of tests and benchmarks: registry clients, an engine, the conformance suite, registries.

Every program is pinned and installed once into ``${XDG_CACHE_HOME:-~/.cache}/tagtrail-tools/NAME-VERSION/``. Needs the
standard library alone, so that it runs before the project is installed. A program that cannot be had is named with the
reason; that is an error only with ``--require`` or when ``CI=true``, because tests skip what is absent.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

GO_BUILD_SECONDS_MAX = 1800
APT_SECONDS_MAX = 900
MAVEN_SECONDS_MAX = 600
DEBOOTSTRAP_SECONDS_MAX = 900
PROJECT = Path(__file__).resolve().parents[1]


class ToolUnavailableError(Exception):
    """A program cannot be had on this machine; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class GoTool:
    """A program built by ``go install MODULE@VERSION``.

    ``slow`` marks what takes minutes to build and is left to ``--all``; ``rare`` what is installed only when it is
    named.
    """

    name: str
    module: str
    version: str
    slow: bool = False
    rare: bool = False

    @property
    def folder(self) -> Path:
        """The cache folder of exactly this version."""
        return cache_folder() / f"{self.name}-{self.version}"

    @property
    def path(self) -> Path:
        """The path of the program once it is installed."""
        return self.folder / self.name

    def build(self, go: Path, out: Path) -> None:
        """Build it into a folder. Raises ToolUnavailableError."""
        environment = {**os.environ, "GOBIN": str(out), "CGO_ENABLED": "0"}
        run_or_raise([str(go), "install", f"{self.module}@{self.version}"], environment, GO_BUILD_SECONDS_MAX)


@dataclass(frozen=True, slots=True)
class GoSource:
    """A program in Go of this repository, in a folder with its go.mod. Its version is that of its files."""

    name: str
    source: Path
    slow: bool = False
    rare: bool = False

    @property
    def version(self) -> str:
        """A checksum of the files, so the same as long as none changes."""
        files = sorted([*self.source.glob("*.go"), *self.source.glob("go.*")])
        return hashlib.sha256(b"\0".join(each.read_bytes() for each in files)).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """The cache folder of exactly this version."""
        return cache_folder() / f"{self.name}-{self.version}"

    @property
    def path(self) -> Path:
        """The path of the program once it is built."""
        return self.folder / self.name

    def build(self, go: Path, out: Path) -> None:
        """Build it into a folder. Raises ToolUnavailableError."""
        environment = {**os.environ, "CGO_ENABLED": "0"}
        command = [str(go), "build", "-C", str(self.source), "-buildvcs=false", "-o", str(out / self.name), "."]
        run_or_raise(command, environment, GO_BUILD_SECONDS_MAX)


@dataclass(frozen=True, slots=True)
class DebianTool:
    """A program that comes from a Debian package; ``rare`` marks what is installed only when it is named."""

    name: str
    package: str
    programs: tuple[str, ...]
    rare: bool = False

    def missing(self) -> list[str]:
        """The names of its programs that stand neither on PATH nor in the system folders."""
        return [program for program in self.programs if find_program(program) is None]


GO_TOOLS = (
    GoTool(
        "conformance",
        "github.com/opencontainers/distribution-spec/conformance",
        "v0.0.0-20260831232431-97274622c111",
    ),
    GoTool("crane", "github.com/google/go-containerregistry/cmd/crane", "v0.22.1"),
    GoTool("oras", "oras.land/oras/cmd/oras", "v1.3.6"),
    GoTool("regctl", "github.com/regclient/regclient/cmd/regctl", "v0.11.7"),
    GoTool("helm", "helm.sh/helm/v4/cmd/helm", "v4.3.1", slow=True),
    GoTool("cosign", "github.com/sigstore/cosign/v3/cmd/cosign", "v3.1.3", slow=True),
    GoTool("registry", "github.com/distribution/distribution/v3/cmd/registry", "v3.1.2", rare=True),
    GoSource("stargz-read", PROJECT / "tests" / "clients" / "stargz", slow=True),
)


@dataclass(frozen=True, slots=True)
class MavenTool:
    """A Java program: Maven artefacts and all that they depend on, as jars in one folder.

    `version` ends in a number of our own, for a new choice of artefacts of the same program.
    """

    name: str
    version: str
    artefacts: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The cache folder of exactly this version; the jars are there."""
        return cache_folder() / f"{self.name}-{self.version}"


# `kafka-tools` is for the stand-in of the official image. Without a binding for slf4j the broker would log nothing.
KAFKA = MavenTool(
    "kafka",
    "4.3.0-2",
    (
        "org.apache.kafka:kafka_2.13:4.3.0",
        "org.apache.kafka:kafka-tools:4.3.0",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
    ),
)


@dataclass(frozen=True, slots=True)
class DebianTree:
    """Programs of a newer Debian than this machine's, in a file tree of their own, where they run by chroot."""

    name: str
    suite: str
    package: str

    @property
    def folder(self) -> Path:
        """The root of the tree."""
        return cache_folder() / f"{self.name}-{self.suite}"


PODMAN5 = DebianTree("podman5", "trixie", "podman")
DEBOOTSTRAP = DebianTool("debootstrap", "debootstrap", ("debootstrap",), rare=True)

DEBIAN_TOOLS = (
    DebianTool("docker", "docker.io", ("docker", "dockerd", "ctr")),
    DebianTool("skopeo", "skopeo", ("skopeo",)),
    DebianTool("podman", "podman", ("podman",)),
    DebianTool("busybox", "busybox-static", ("busybox",)),
    DebianTool("java", "openjdk-17-jdk-headless", ("java", "javac")),
    DebianTool("maven", "maven", ("mvn",)),
    DebianTool("docker-compose", "docker-compose", ("docker-compose",)),
    DEBOOTSTRAP,
    DebianTool("docker-registry", "docker-registry", ("docker-registry",), rare=True),
)


def cache_folder() -> Path:
    """The folder that holds every built program, outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "tagtrail-tools"


def find_program(name: str) -> Path | None:
    """Find a program on PATH or in the system folders, which a plain user's PATH may lack; None if absent."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=search)
    return Path(found) if found else None


def find_tool(name: str) -> Path | None:
    """Path of a built tool of the pinned version, else of any program of that name; None if absent."""
    for tool in GO_TOOLS:
        if tool.name == name:
            return tool.path if tool.path.exists() else None
    return find_program(name)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock over one tool, so that two installs at once build it once; released by the end of the process too."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def install_go_tool(tool: GoTool | GoSource) -> str:
    """Build one Go program into the cache; answers what was done.

    Raises ToolUnavailableError when go is absent or the build fails. The folder appears by one rename, whole or never.
    """
    with locked(tool.name):
        if tool.path.exists():
            return "already there"
        go = find_program("go") or find_program("/usr/local/go/bin/go")
        if go is None:
            raise ToolUnavailableError("go is not on PATH; install Go 1.24 or newer from https://go.dev/dl/")
        with tempfile.TemporaryDirectory(prefix=f".{tool.name}-", dir=cache_folder()) as temporary:
            out = Path(temporary) / "out"
            out.mkdir()
            tool.build(go, out)
            if not (out / tool.name).exists():
                raise ToolUnavailableError(f"the build of {tool.name} {tool.version} left no program of that name")
            shutil.rmtree(tool.folder, ignore_errors=True)
            out.rename(tool.folder)
        return "built"


_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>tagtrail</groupId><artifactId>tools</artifactId><version>1</version>
<dependencies>{dependencies}</dependencies></project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def install_maven_tool(tool: MavenTool) -> str:
    """Download a Java program's jars into the cache; answers what was done.

    Raises ToolUnavailableError when Maven is absent or fails. The folder appears by one rename, whole or never.
    """
    with locked(tool.name):
        if tool.folder.exists():
            return "already there"
        maven = find_program("mvn")
        if maven is None:
            raise ToolUnavailableError("mvn is not on PATH; as root run: apt-get install -y maven")
        with tempfile.TemporaryDirectory(prefix=f".{tool.name}-", dir=cache_folder()) as temporary:
            folder = Path(temporary)
            dependencies = "".join(_DEPENDENCY.format(*each.split(":")) for each in tool.artefacts)
            (folder / "pom.xml").write_text(_POM.format(dependencies=dependencies))
            command = [str(maven), "-q", "-B", "-f", str(folder / "pom.xml"), "dependency:copy-dependencies"]
            command += [f"-DoutputDirectory={folder / 'out'}", "-DincludeScope=runtime"]
            run_or_raise(command, dict(os.environ), MAVEN_SECONDS_MAX)
            (folder / "out").rename(tool.folder)
        return "downloaded"


def install_debian_tree(tree: DebianTree) -> str:
    """Unpack a small Debian and one of its packages into the cache; answers what was done.

    Raises ToolUnavailableError when this user or system cannot. The folder appears by one rename, whole or never.
    """
    with locked(tree.name):
        if tree.folder.exists():
            return "already there"
        install_debian_tools([DEBOOTSTRAP])
        with tempfile.TemporaryDirectory(prefix=f".{tree.name}-", dir=cache_folder()) as temporary:
            root = Path(temporary) / "root"
            # In a mount namespace of its own, its mounts are gone when it ends, however it ends.
            command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={tree.package}"]
            run_or_raise([*command, tree.suite, str(root)], dict(os.environ), DEBOOTSTRAP_SECONDS_MAX)
            for package in (root / "var" / "cache" / "apt" / "archives").glob("*.deb"):
                package.unlink()
            root.rename(tree.folder)
        return "unpacked"


def run_or_raise(command: Sequence[str], environment: dict[str, str], seconds_max: int) -> None:
    """Run a command quietly; raises ToolUnavailableError with the last lines of its output when it fails."""
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds_max, check=False
        )
    except subprocess.TimeoutExpired:
        raise ToolUnavailableError(f"{shown}: not finished after {seconds_max} s") from None
    if done.returncode != 0:
        tail = "\n    ".join(done.stdout.decode(errors="replace").strip().splitlines()[-8:])
        raise ToolUnavailableError(f"{shown}: exit {done.returncode}\n    {tail}")


def install_debian_tools(tools: Sequence[DebianTool]) -> dict[str, str]:
    """Install by apt-get those packages that miss a program; answers what was done per tool.

    Raises ToolUnavailableError when something is missing and this user or system cannot install it.
    """
    with locked("apt"):
        missing = [tool for tool in tools if tool.missing()]
        outcome = {tool.name: "already there" for tool in tools if tool not in missing}
        if not missing:
            return outcome
        packages = [tool.package for tool in missing]
        if os.geteuid() != 0:
            raise ToolUnavailableError(f"not root; as root run: apt-get install -y {' '.join(packages)}")
        if find_program("apt-get") is None:
            raise ToolUnavailableError(f"no apt-get here; install by other means: {', '.join(packages)}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run_or_raise(["apt-get", "-q", "update"], environment, APT_SECONDS_MAX)
        # Otherwise the package of Docker would start an engine for the whole system, which nobody asked for.
        with services_held_back():
            run_or_raise(
                ["apt-get", "-q", "install", "-y", "--no-install-recommends", *packages], environment, APT_SECONDS_MAX
            )
        absent = [program for tool in missing for program in tool.missing()]
        if absent:
            raise ToolUnavailableError(f"installed {', '.join(packages)}, but still absent: {', '.join(absent)}")
        return outcome | {tool.name: "installed" for tool in missing}


@contextmanager
def services_held_back() -> Iterator[None]:
    """Keep freshly installed packages from starting their services, unless the system already has a policy."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def command_install(*, everything: bool, require: bool, only: Sequence[str]) -> int:
    """Install what was asked for, print one line each, answer the exit code."""
    failures = 0
    # Kafka needs Maven to be downloaded and Java to run, so whoever names Kafka gets both.
    wanted_debian = {*only, "java", "maven"} if KAFKA.name in only else set(only)
    debian = [tool for tool in DEBIAN_TOOLS if ({tool.name, tool.package} & wanted_debian if only else not tool.rare)]
    if debian:
        try:
            for name, outcome in install_debian_tools(debian).items():
                print(f"{name}: {outcome}", flush=True)
        except ToolUnavailableError as error:
            failures += 1
            print(f"Debian packages: cannot be had: {error}", file=sys.stderr, flush=True)
    for tool in GO_TOOLS:
        if tool.name in only if only else not tool.rare and (everything or not tool.slow):
            failures += not _installed(f"{tool.name} {tool.version}", partial(install_go_tool, tool), tool.path)
    if not only or KAFKA.name in only:
        failures += not _installed(f"{KAFKA.name} {KAFKA.version}", partial(install_maven_tool, KAFKA), KAFKA.folder)
    if PODMAN5.name in only if only else everything:
        tree = PODMAN5
        failures += not _installed(f"{tree.name} {tree.suite}", partial(install_debian_tree, tree), tree.folder)
    return 1 if failures and require else 0


def _installed(label: str, install: Callable[[], str], place: Path) -> bool:
    """Install one tool and print a line about it; answers whether it is there."""
    try:
        print(f"{label}: {install()}: {place}", flush=True)
    except ToolUnavailableError as error:
        print(f"{label}: cannot be had: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _how_to_get(tool: GoTool | GoSource) -> str:
    if tool.rare:
        return f" (install {tool.name})"
    return " (install --all)" if tool.slow else ""


def command_list() -> int:
    """Print every tool, its pinned version and where it stands."""
    for tool in GO_TOOLS:
        where = str(tool.path) if tool.path.exists() else "absent" + (_how_to_get(tool))
        print(f"{tool.name:14} {tool.version:40} {where}")
    print(f"{KAFKA.name:14} {KAFKA.version:40} {KAFKA.folder if KAFKA.folder.exists() else 'absent'}")
    tree = PODMAN5.folder if PODMAN5.folder.exists() else "absent (install --all)"
    print(f"{PODMAN5.name:14} {PODMAN5.suite:40} {tree}")
    for debian in DEBIAN_TOOLS:
        for program in debian.programs:
            print(f"{program:14} {'(Debian ' + debian.package + ')':40} {find_program(program) or 'absent'}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: ``install [--all] [--require] [NAME...]`` or ``list``."""
    parser = argparse.ArgumentParser(
        prog="tools.py", description="Outside programs that tests drive, pinned and cached."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    install = commands.add_parser("install", help="install what is missing of what the tests drive")
    install.add_argument("--all", action="store_true", help="also what takes minutes: helm, cosign, podman 5, stargz")
    install.add_argument("--require", action="store_true", help="exit 1 when something cannot be had (as with CI=true)")
    install.add_argument("names", nargs="*", metavar="NAME", help="only these")
    commands.add_parser("list", help="what is there, and where")
    chosen = parser.parse_args(arguments)
    if chosen.command == "list":
        return command_list()
    known = (
        {KAFKA.name, PODMAN5.name}
        | {tool.name for tool in GO_TOOLS}
        | {n for tool in DEBIAN_TOOLS for n in (tool.name, tool.package)}
    )
    unknown = sorted(set(chosen.names) - known)
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    require = chosen.require or os.environ.get("CI", "").lower() == "true"
    return command_install(everything=chosen.all, require=require, only=chosen.names)


if __name__ == "__main__":
    sys.exit(main())
