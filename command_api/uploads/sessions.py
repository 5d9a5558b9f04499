"""Upload sessions as requests go on with them, and as this process last saw them recorded.

What is remembered may be old, another process may have been asked since. Whoever goes on with it makes sure that no
acknowledged byte is in danger (the staging file ends where the session is said to end: every recorded chunk made it
longer) and appends at the remembered version, so that the log refuses everything else that changed.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from domain import upload as uploads
from domain.event import Event
from domain.upload import Upload, UploadStarted

SESSIONS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Session:
    """An upload and the version of its stream.

    `started` is what its id alone proves, where the log is not known to have anything of it: its version is 0.
    """

    version: int
    upload: Upload
    started: UploadStarted | None = None

    def after(self, happened: Event) -> "Session":
        """The session once the event is recorded, and with it the start if that is not."""
        appended = 1 if self.started is None else 2
        return Session(self.version + appended, uploads.evolve(self.upload, happened))


class Sessions:
    """The open sessions used last."""

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        self._sessions_max = sessions_max
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, upload_id: str) -> Session | None:
        """The session as last seen, None if this process has not seen it open or has forgotten it."""
        return self._sessions.get(upload_id)

    def learn(self, session: Session) -> None:
        """Remember a session as it was just recorded or read; one that has ended is forgotten."""
        with self._lock:
            self._sessions.pop(session.upload.id, None)
            if session.upload.is_open:
                self._sessions[session.upload.id] = session
            if len(self._sessions) > self._sessions_max:
                self._sessions.popitem(last=False)
