"""Upload sessions as requests go on with them, and as this process last saw them recorded.

A remembered session may be old, because another process may have been asked since. So a request that goes on with it
first makes sure that no acknowledged byte is in danger: every recorded chunk made the staging file longer, so the file
must end where the session is remembered to end. Then it appends at the remembered version, and the log refuses that if
anything else has changed.
"""

import threading
from collections import OrderedDict

from domain.upload import Session

SESSIONS_MAX = 1024


class Sessions:
    """The open sessions used last."""

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        self._sessions_max = sessions_max
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, upload_id: str) -> Session | None:
        """The session as last seen, None if this process has not seen it open or has forgotten it."""
        return self._sessions.get(upload_id)

    def forget(self, upload_id: str) -> None:
        """Forget a session that has ended."""
        with self._lock:
            self._sessions.pop(upload_id, None)

    def learn(self, session: Session) -> None:
        """Remember a session as it was just recorded or read; one that has ended is forgotten."""
        with self._lock:
            self._sessions.pop(session.upload.id, None)
            if session.upload.is_open:
                self._sessions[session.upload.id] = session
            if len(self._sessions) > self._sessions_max:
                self._sessions.popitem(last=False)
