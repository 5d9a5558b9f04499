"""Measures how fast the same work is without a registry: limits, in the units of the rows that they stand beside.

bare WSGI             granian, two workers, an application that knows nothing (bare.py)
sendfile              the same files sent by a program that does nothing else (bench/load/sendfile.go)
sha256                hashlib over the same bytes in memory
fdatasync             the same bytes written to a file of the same disk and flushed
fdatasync of 4 files  the blobs of a small image (three layers, a config), by as many threads as push
"""

import hashlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench.registries import loading, peers
from bench.registries.rows import BYTES, Row

LAYER_BYTES = 4096
CONFIG_BYTES = 600
PUSHERS = 16
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """The running servers of the limits, and a folder on the disk that the registries use."""

    load: Path
    bare: peers.Running
    files: peers.Running
    folder: Path
    big_bytes: int
    seconds: float
    population: tuple[str, ...]

    def measure(self, name: str, row: Row) -> float:
        """The limit of this name for a row, in the unit of the row."""
        if name == "bare WSGI":
            return self._served(self.bare, row)
        if name == "sendfile":
            return self._served(self.files, row)
        if name == "sha256":
            return sha256_gb_s(self.big_bytes)
        if name == "fdatasync":
            return fdatasync_gb_s(self.folder, self.big_bytes)
        return fdatasync_images_s(self.folder, self.seconds)

    def _served(self, server: peers.Running, row: Row) -> float:
        arguments = (*row.load, *self.population, *(("-unchecked",) if server is self.bare else ()))
        found = loading.run(self.load, server.address, arguments, self.seconds)
        if found.errors:
            raise loading.LoadFailed(f"{server.name}: {found.errors} errors: {found.first_error}")
        return found.bytes_s / 1e9 if row.unit == BYTES else found.rate

    def stop(self) -> None:
        """End the servers."""
        self.bare.stop()
        self.files.stop()


def start(load: Path, blobs: Path, folder: Path, big_bytes: int, seconds: float, population: tuple[str, ...]) -> Limits:
    """Start the servers; in the folder `blobs`, our blobs lie in folders by the first two letters of their digest."""
    bare_address, files_address = peers.free_address(), peers.free_address()
    bare = _launched(
        "bare WSGI", bare_address, [sys.executable, "-m", "bench.registries.bare", bare_address.rpartition(":")[2]]
    )
    try:
        command = [str(load), "serve-files", "-address", files_address, "-folder", str(blobs)]
        files = _launched("sendfile", files_address, command)
    except BaseException:
        bare.stop()
        raise
    return Limits(load, bare, files, folder, big_bytes, seconds, population)


def _launched(name: str, address: str, command: list[str]) -> peers.Running:
    process = subprocess.Popen(
        command, cwd=Path(__file__).parent.parent.parent, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    running = peers.Running(name, address, process)
    try:
        peers.wait_answering(running)
    except BaseException:
        running.stop()
        raise
    return running


def sha256_gb_s(size: int) -> float:
    """Hash so many bytes block by block; answers GB a second."""
    block, state = os.urandom(min(_BLOCK, size)), hashlib.sha256()
    began = time.perf_counter()
    for _ in range(max(1, size // _BLOCK)):
        state.update(block)
    return max(1, size // _BLOCK) * len(block) / (time.perf_counter() - began) / 1e9


def fdatasync_gb_s(folder: Path, size: int) -> float:
    """Write so many bytes to a new file and flush them; answers GB a second."""
    block, path = os.urandom(min(_BLOCK, size)), folder / "fdatasync"
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(max(1, size // _BLOCK)):
            file.write(block)
        os.fdatasync(file.fileno())
    took = time.perf_counter() - began
    path.unlink()
    return max(1, size // _BLOCK) * len(block) / took / 1e9


def fdatasync_images_s(folder: Path, seconds: float) -> float:
    """Write and flush the blobs of small images by many threads; answers images a second."""
    ends, done = time.perf_counter() + seconds, [0] * PUSHERS
    layer, config = os.urandom(LAYER_BYTES), os.urandom(CONFIG_BYTES)

    def push(thread: int) -> None:
        path = folder / f"fdatasync-{thread}"
        while time.perf_counter() < ends:
            for content in (layer, layer, layer, config):
                with path.open("wb", buffering=0) as file:
                    file.write(content)
                    os.fdatasync(file.fileno())
                path.unlink()
            done[thread] += 1

    threads = [threading.Thread(target=push, args=(number,)) for number in range(PUSHERS)]
    began = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return sum(done) / (time.perf_counter() - began)
