"""The module that each granian worker loads. It imports little, because signals are lost until `make_worker` runs."""

import signal
from typing import TYPE_CHECKING

from tagtrail.server.processes import end_with_parent, never_outlive_parent, share_memory_pools

if TYPE_CHECKING:
    from tagtrail.shell import Application

# The time that requests in flight get when the server is told to stop.
ORPHAN_GRACE_S = 7.0


def make_worker() -> "Application":
    """The application of this worker, which ends with the API process, so that nobody is left on the port."""
    # Until granian sets its own handlers, a forked worker has its parent's, which would swallow the order to end.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_DFL)
    end_with_parent()
    never_outlive_parent(ORPHAN_GRACE_S)
    share_memory_pools()
    from tagtrail.config import current_settings
    from tagtrail.server.connections import watch_connections
    from tagtrail.server.entry import take_over
    from tagtrail.server.keepalive import keep_alive_when_listening
    from tagtrail.wsgi import make_application

    keep_alive_when_listening()
    settings = current_settings()
    take_over(settings.threads)
    application = make_application()
    watch_connections(settings, application.waits)
    return application
