"""The projector process. It feeds the read models until told to stop, and its keeper does the upkeep of the log.

The keeper is a thread here because a process of its own would take another 40 MB to be idle nearly all the time.
"""

import signal

from eventstore.feed.waking import Stop
from projections.projector import project
from tagtrail import logs
from tagtrail.config import current_settings
from tagtrail.keeping import keeping
from tagtrail.server.processes import appender_path, board_path, end_with_parent, supervisor_pid


def main() -> None:
    """Project until SIGTERM or SIGINT."""
    settings = current_settings()
    logs.configure(settings, "projector")
    end_with_parent(supervisor_pid())
    stop = Stop()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    with keeping(settings, stop, board_path(), appender_path()):
        project(settings.database_url, stop, kafka=settings.kafka_settings)


if __name__ == "__main__":
    main()
