"""Limits of the machine for a worker: open files and threads."""

import logging
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tagtrail.config import Settings

# A worker's files besides connections, blobs that are read, and files of its threads. Half of them are for
# connections that linger (see tagtrail.server.lingering).
_FILES_RESERVED = 512
# Threads of the user or the container that are left for everything but this worker.
_THREADS_RESERVED = 512
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Capacity:
    """The most connections and downloads of one worker."""

    connections: int
    downloads: int


def capacity(settings: Settings) -> Capacity:
    """The capacity that the options ask for, as far as open files and threads allow.

    Each connection is an open file, and many systems begin with 1024, so that limit is raised as far as possible. Idle
    connections count too. So there are far more than threads; otherwise a few hundred clients that keep theirs open
    would shut out all others. Each download also has its blob open and holds a thread. A thread that cannot be started
    would end the worker.
    """
    others = 2 * settings.threads + _FILES_RESERVED
    working = settings.threads + settings.upload_bodies_total
    wanted = settings.connections + settings.downloads_total
    files = open_files(wanted + others) - others
    downloads = settings.downloads_total if files >= wanted else min(settings.downloads_total, max(1, files // 4))
    connections = min(settings.connections, max(settings.threads, files - downloads))
    threads = _threads_allowed()
    if threads is not None:
        downloads = min(downloads, max(1, (threads - _THREADS_RESERVED) // settings.workers - working))
    return Capacity(connections, downloads)


def warn_of_low_limits(settings: Settings, found: Capacity) -> None:
    """Log which options the machine does not allow."""
    for name, wanted, allowed in (
        ("connections", settings.connections, found.connections),
        ("downloads", settings.downloads_total, found.downloads),
    ):
        if allowed < wanted:
            _log.warning("limits of open files or threads allow %d %s a worker, not %d", allowed, name, wanted)


def open_files(wanted: int) -> int:
    """Raise the limit of open files to `wanted` if possible. Answers the new limit, but no more than `wanted`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    files = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return files


def _threads_allowed() -> int | None:
    """The least limit of threads that holds for this process; None if there is none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    # It does not bind the superuser.
    own = [] if soft == resource.RLIM_INFINITY or os.geteuid() == 0 else [soft]
    return min([*own, *_cgroup_limits()], default=None)


def _cgroup_limits() -> Iterator[int]:
    """`pids.max` of this process's control group and of those above it, of either version of control groups."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "pids" not in controllers.split(","):
            continue
        root = _CGROUPS / "pids" if controllers else _CGROUPS
        group = root / place.lstrip("/")
        for folder in (group, *group.parents):
            if folder in _CGROUPS.parents:
                break
            try:
                found = (folder / "pids.max").read_text().strip()
            except OSError:
                continue  # the root group has none, and a container may not see the groups above its own
            if found.isdigit():
                yield int(found)
