"""The module that the server's worker processes load."""

from dataclasses import replace
from multiprocessing.util import Finalize

from tagtrail import logs
from tagtrail.config import current_settings
from tagtrail.server.limits import capacity
from tagtrail.server.processes import appender_path, board_path
from tagtrail.shell import Application
from tagtrail.wiring import make_rooms, make_wsgi, register, start_beside

# A worker that listens before it is registered answers 503. But a database that is away is not waited for.
FIRST_BEAT_S = 3.0
# A worker that ends signs off, but does not wait long for a database that is away.
LAST_BEAT_S = 3.0


def make_application() -> Application:
    """The application of a worker, from the settings handed to its process."""
    settings = current_settings()
    logs.configure(settings, "api")
    settings = replace(settings, downloads_total=capacity(settings).downloads)
    rooms = make_rooms(settings, board_path=board_path(), appender=appender_path())
    members = register(rooms)
    # Workers are processes of multiprocessing, which calls this once granian has served its last request.
    Finalize(None, members.close, args=(LAST_BEAT_S,), exitpriority=0)
    start_beside(rooms)
    members.wait_tried(FIRST_BEAT_S)
    return make_wsgi(rooms, lambda: members.refusal)
