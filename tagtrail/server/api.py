"""The API process: granian with its workers."""

import importlib
import logging

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from tagtrail import logs
from tagtrail.config import current_settings
from tagtrail.server.allocator import freeze_for_workers
from tagtrail.server.callers import IDLE_S
from tagtrail.server.limits import capacity, warn_of_low_limits
from tagtrail.server.processes import end_with_parent, supervisor_pid

WORKERS_KILL_TIMEOUT_S = 7
RESPAWN_INTERVAL_S = 0.5
BACKLOG = 2048
# The most of a body that is received at a time: with 64 KiB a quarter of a large upload went into waking up threads.
# Also the bytes of an answer that wait in a connection before its thread waits too, and the longest head of a request.
CONNECTION_BUFFER_BYTES = 256 * 1024
# granian's lines go where ours go. Its lines at the start are of no use to an operator.
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
    freeze_for_workers()
    may_hold = capacity(settings)
    warn_of_low_limits(settings, may_hold)
    Granian(
        "tagtrail.server.worker:make_worker",
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        # With HTTP/2 a connection that sends nothing would never be closed, and no client speaks it here.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(settings.idle_timeout_s * 1000), max_buffer_size=CONNECTION_BUFFER_BYTES
        ),
        workers=settings.workers,
        # Rests of bodies are read in threads beside those of requests (see tagtrail.draining).
        blocking_threads=settings.threads + settings.upload_bodies_total,
        blocking_threads_idle_timeout=IDLE_S,
        backpressure=may_hold.connections,
        backlog=BACKLOG,
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_INTERVAL_S,
        workers_kill_timeout=WORKERS_KILL_TIMEOUT_S,
        log_level=LogLevels.error,
        log_dictconfig=_GRANIAN_LOGS,
        websockets=False,
    ).serve()


if __name__ == "__main__":
    main()
