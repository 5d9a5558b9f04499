"""The keeper process of a server without a projector. It does the upkeep of the log until told to stop."""

import signal
import threading

from tagtrail import keeping, logs
from tagtrail.config import current_settings
from tagtrail.server.processes import appender_path, board_path, end_with_parent, supervisor_pid


def main() -> None:
    """Keep the log until SIGTERM or SIGINT."""
    settings = current_settings()
    logs.configure(settings, "keeper")
    end_with_parent(supervisor_pid())
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    keeping.keep(settings, stop, board_path(), appender_path())


if __name__ == "__main__":
    main()
