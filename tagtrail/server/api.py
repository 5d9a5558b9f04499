"""The API process: granian with its workers."""

import importlib
import resource

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from tagtrail import logs
from tagtrail.config import Settings, current_settings
from tagtrail.server.processes import end_with_parent, supervisor_pid

WORKERS_KILL_TIMEOUT_S = 7
RESPAWN_INTERVAL_S = 0.5
CONNECTIONS_MAX = 8192
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
        workers=settings.workers,
        blocking_threads=settings.threads,
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
    """How many connections a worker takes (what granian calls backpressure).

    Idle connections count too, so it must be far above the number of threads, or a few hundred clients that keep
    theirs open would shut out all others.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(settings.threads, min(CONNECTIONS_MAX, files - 2 * settings.threads - _FILES_RESERVED))


if __name__ == "__main__":
    main()
