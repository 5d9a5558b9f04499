"""Upload sessions as requests go on with them, and as this process last saw them recorded.

What is remembered may be old, another process may have been asked since. Whoever goes on with it makes sure that no
acknowledged byte is in danger (the staging file ends where the session is said to end: every recorded chunk made it
longer) and appends at the remembered version, so that the log refuses everything else that changed.
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
