"""Clients that need a part of a layer are sent that part: podman 5 with zstd:chunked, and stargz-snapshotter's reader.

Both ask for many ranges in one GET. They would also work with a registry that answers with the whole blob, so the
bytes on the wire are counted.
"""

import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from random import Random

import pytest

from .engine import unmount_below
from .images import random_bytes, tar_of
from .measured import Measured, measured
from .programs import Program, find, missing, private_environment, program, tools
from .wire import Registry

pytestmark = [pytest.mark.clients, pytest.mark.allclients, pytest.mark.xdist_group("partial")]

MIB = 1 << 20
FILES = 40
CHANGED = range(3, FILES, 7)
# Room for the heads of answers, a table of contents, and the ends of compressed frames.
SPARE_BYTES = 256 * 1024
CHUNK_BYTES = 2000
PAIRS = 300
# The root of a tree must be a mount point, or podman cannot make it private for what it unpacks.
ENTER = """set -e
mount --bind "$0" "$0"
cd "$0"
mount --bind "$1" mnt
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
shift
exec chroot . "$@"
"""
STORAGE = """[storage]
driver = "overlay"
[storage.options]
pull_options = {enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}
"""


@pytest.fixture
def counting(registry: Registry) -> Iterator[Measured]:
    """The registry behind a proxy that counts bytes."""
    with measured(registry.host) as proxy:
        yield proxy


@pytest.fixture
def podman5(home: Path) -> Iterator[Program]:
    """Podman of Debian 13 in a tree and a mount namespace of its own; its stores are below /mnt."""
    unshare = find("unshare")
    if unshare is None or not tools.PODMAN5.folder.exists():
        missing("podman 5 is absent; run as root: python3 scripts/tools.py install podman5")
    if os.geteuid() != 0:
        missing("podman 5 stands in a tree that only root can enter")
    store = Path(tempfile.mkdtemp(prefix="ttp5-", dir="/tmp"))
    (store / "storage.conf").write_text(STORAGE)
    environment = {
        **private_environment(home),
        "HOME": "/mnt",
        "CONTAINERS_STORAGE_CONF": "/mnt/storage.conf",
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
    }
    entering = ("--mount", "sh", "-c", ENTER, str(tools.PODMAN5.folder), str(store))
    try:
        yield Program(unshare, environment, (*entering, "podman", "--cgroup-manager=cgroupfs", "--events-backend=none"))
    finally:
        unmount_below(store)
        shutil.rmtree(store)


def _files(seed: str, changed: Collection[int]) -> dict[str, bytes]:
    """Files by name, whose bytes do not compress; files of `changed` numbers have other bytes of the same length."""
    return {f"f{each:02}": random_bytes(f"{seed}/{each}/{each in changed}", MIB) for each in range(FILES)}


def _files_of(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        found = {each.name: archive.extractfile(each) for each in archive if each.isreg()}
        return {name: file.read() for name, file in found.items() if file is not None}


def _store(podman5: Program, name: str) -> Program:
    """Podman with a store of its own, of this name."""
    places = (f"--root=/mnt/{name}", f"--runroot=/mnt/{name}-run", f"--tmpdir=/mnt/{name}-tmp")
    return Program(podman5.path, podman5.environment, (*podman5.leading, *places))


def test_podman_pulls_the_files_that_changed(podman5: Program, counting: Measured, repository: str) -> None:
    """It has an image of 40 MiB and pulls one that differs in 6 MiB: only these are sent, and the image is right."""
    assert podman5("--version").text.startswith("podman version 5.")
    name = f"{counting.host}/{repository}"
    pushing, pulling = _store(podman5, "push"), _store(podman5, "pull")
    for tag, changed in (("v1", ()), ("v2", CHANGED)):
        pushing("import", "-", f"localhost/{tag}", stdin=tar_of(_files(repository, changed)))
        compressed = "--compression-format=zstd:chunked"
        pushing("push", "--tls-verify=false", compressed, f"localhost/{tag}", f"{name}:{tag}")
    pulling("pull", "--tls-verify=false", f"{name}:v1")
    counting.start_again()
    pulling("pull", "--tls-verify=false", f"{name}:v2")
    assert len(CHANGED) * MIB < counting.sent < len(CHANGED) * MIB + SPARE_BYTES
    assert re.search(r"range: bytes=\d+-\d+(,\d+-\d+){5}\r", counting.asked, re.IGNORECASE)
    pulling("create", "--name=v2", "--network=none", f"{name}:v2", "/none")
    files = _files_of(pulling("export", "v2").stdout)
    expected = _files(repository, CHANGED)
    assert {each: files.get(each) == expected[each] for each in expected} == dict.fromkeys(expected, True)


def test_stargz_reads_the_chunks_that_it_lacks(
    registry: Registry, counting: Measured, repository: str, home: Path
) -> None:
    """It reads 600 chunks of 2,000 bytes of a layer of 40 MiB: 300 one by one, the 300 between these by one GET."""
    reader = program("stargz-read", home)
    data = Random(repository).randbytes(FILES * MIB)
    digest = registry.put_blob(repository, data)["digest"]
    wanted = 2 * PAIRS * CHUNK_BYTES
    arguments = {
        "host": counting.host,
        "repository": repository,
        "digest": digest,
        "chunk": CHUNK_BYTES,
        "pairs": PAIRS,
    }
    found = reader(*(f"-{name}={value}" for name, value in arguments.items()))
    assert found.stdout == data[:wanted]
    assert re.search(rf"range: bytes=\d+-\d+(,\d+-\d+){{{PAIRS - 1}}}\r", counting.asked, re.IGNORECASE)
    # Each answer has a head, and each part of the one answer with many parts has a head too.
    assert wanted < counting.sent < wanted + 2 * PAIRS * 700
