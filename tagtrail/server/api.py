"""The API process: granian with its workers."""

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from tagtrail import logs
from tagtrail.config import current_settings

WORKERS_KILL_TIMEOUT_S = 7
RESPAWN_INTERVAL_S = 0.5


def main() -> None:
    """Serve until told to stop; a worker that dies is replaced."""
    settings = current_settings()
    logs.configure(settings, "api")
    Granian(
        "tagtrail.wsgi:make_application",
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.threads,
        # Requests beyond the threads wait in the kernel's queue, not in memory.
        backpressure=settings.threads,
        backlog=2048,
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_INTERVAL_S,
        workers_kill_timeout=WORKERS_KILL_TIMEOUT_S,
        log_level=LogLevels.error,
        websockets=False,
    ).serve()


if __name__ == "__main__":
    main()
