"""The API process: granian with its workers."""

import importlib
import logging
import resource

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from tagtrail import logs
from tagtrail.config import Settings, current_settings
from tagtrail.server.processes import end_with_parent, supervisor_pid

WORKERS_KILL_TIMEOUT_S = 7
RESPAWN_INTERVAL_S = 0.5
BACKLOG = 2048
# A worker's files besides connections and what its threads have open.
_FILES_RESERVED = 256
# granian's own lines go where ours go; what it only narrates or warns of at start is of no use to an operator.
_GRANIAN_LOGS = {
    "formatters": {},
    "handlers": {},
    "loggers": {
        "_granian": {"handlers": [], "propagate": True},
        "granian.access": {"handlers": [], "propagate": False},
    },
}

_log = logging.getLogger(__name__)


def main() -> None:
    """Serve until told to stop; a worker that dies is replaced."""
    settings = current_settings()
    logs.configure(settings, "api")
    end_with_parent(supervisor_pid())
    # Loaded here, once: forked workers have it already and share its memory.
    importlib.import_module("tagtrail.wsgi")
    Granian(
        "tagtrail.server.worker:make_worker",
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        # Where HTTP/2 is spoken too, a connection that sends nothing is never closed, and no client speaks it here.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.idle_timeout_s * 1000)),
        workers=settings.workers,
        # Rests of bodies are read beside the requests, not in the place of some (see tagtrail.draining).
        blocking_threads=settings.threads + settings.upload_bodies_total,
        backpressure=connections_max(settings),
        backlog=BACKLOG,
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_INTERVAL_S,
        workers_kill_timeout=WORKERS_KILL_TIMEOUT_S,
        log_level=LogLevels.error,
        log_dictconfig=_GRANIAN_LOGS,
        websockets=False,
    ).serve()


def connections_max(settings: Settings) -> int:
    """How many connections a worker takes (what granian calls backpressure): as many as the open files allow.

    Each connection is an open file, and many systems begin with 1024: the limit is raised as far as may be. Idle
    connections count too, so this is far above the number of threads, or a few hundred clients that keep theirs open
    would shut out all others.
    """
    others = 2 * settings.threads + _FILES_RESERVED
    files = _open_files(settings.connections + others)
    if files >= settings.connections + others:
        return settings.connections
    allowed = max(settings.threads, files - others)
    _log.warning("%d open files allow %d connections a worker, not %d", files, allowed, settings.connections)
    return allowed


def _open_files(wanted: int) -> int:
    """Raise the limit of open files to what is wanted, if it may be; answers what it is now, or `wanted` if less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    files = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return files


if __name__ == "__main__":
    main()
