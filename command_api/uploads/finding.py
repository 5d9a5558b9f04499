"""From the id in a request's path to the session that it names: by its seal, by memory, by the log."""

from dataclasses import dataclass

from command_api.bodies import content_length, has_body
from command_api.context import Context
from command_api.uploads.answers import unknown_upload
from domain.changes import HISTORY, UPLOADS
from domain.features import UPLOADS_LOG
from domain.names import InvalidName, UploadId
from domain.session_id import SessionId, claimed, old_upload_id, proof_of
from domain.streams import upload_stream
from domain.upload import Session, Upload, has_lapsed, proved_session, recorded_session
from eventstore.features import READERS, Feature
from protocol.messages import Request

_UPLOADS_LOG = Feature(UPLOADS_LOG, READERS | {"keeper", "relay"})
# Before a longer body, or one that may be longer, is taken, the log is asked whether the session takes it.
ASK_FIRST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Named:
    """The session that a path names. `said` is the content of its id, if that can be seen to be genuine.

    An id of the old kind proves nothing; it names its session by being unguessable. An id whose key is gone is
    recognized by a hash of it, if the log has the session.
    """

    upload: UploadId
    said: SessionId | None = None
    proof: str | None = None

    def fits(self, upload: Upload) -> bool:
        """True if the path's id is the one by which this session was opened."""
        return self.said is not None or upload.proof == self.proof


def find(context: Context, request: Request) -> Session:
    """The session that the route names, as the log has it; 404 for one of another repository or account."""
    return _find(context, request, _named(context, request))


def seen(context: Context, request: Request) -> Session:
    """The session as this process has seen it, if it has probably not changed since, otherwise as the log has it.

    It is as remembered if its staging file has not grown since, and new if it has none. The caller must end with
    an append at the session's version, which the log refuses if anything else has changed
    (rule: new until the log says otherwise).
    """
    named = _named(context, request)
    staged = context.blobs.staged(named.upload)
    remembered = context.sessions.find(named.upload)
    if remembered is not None and staged == remembered.upload.offset and named.fits(remembered.upload):
        return _own(request, remembered)
    if named.said is not None and not staged and _may_be_first(request) and not _has_lapsed(context, named.said):
        return _proved(context, request, named.said, named.proof)
    return _find(context, request, named)


def log_of_new(context: Context) -> int:
    """The log to which new sessions go: the history as long as processes live that know no other."""
    return HISTORY if context.store.features.lacking(_UPLOADS_LOG) else UPLOADS


def _named(context: Context, request: Request) -> _Named:
    repository, text = request.repository, request.route.reference
    old = old_upload_id(text)
    if old is not None:
        return _Named(old)
    try:
        claim = claimed(text)
    except InvalidName as problem:
        raise unknown_upload() from problem
    said, proof = claim.claims, proof_of(text)
    key = context.seal_keys.find(said.key)
    if key is None:
        return _Named(said.upload, None, proof)
    if not claim.is_genuine(key.secret, repository, request.actor):
        raise unknown_upload()
    return _Named(said.upload, said, proof)


def _find(context: Context, request: Request, named: _Named) -> Session:
    session = recorded_session(context.store.session_state(upload_stream(named.upload)))
    if session is not None:
        if not named.fits(session.upload):
            raise unknown_upload()
        context.sessions.learn(session)
        return _own(request, session)
    if named.said is None or _has_lapsed(context, named.said):
        raise unknown_upload()
    return _proved(context, request, named.said, named.proof)


def _proved(context: Context, request: Request, said: SessionId, proof: str | None) -> Session:
    return proved_session(said, request.repository, request.actor, proof, log_of_new(context))


def _has_lapsed(context: Context, said: SessionId) -> bool:
    return has_lapsed(said, context.limits.upload_expiry, context.clock())


def _may_be_first(request: Request) -> bool:
    """True if a request is one for a new session, and costs little if the session turns out to have ended.

    A body in chunks has no length, so it may be a long one.
    """
    length = content_length(request.environ) if has_body(request.environ) else 0
    short = length is not None and length <= ASK_FIRST_BYTES
    return short and (request.header("Content-Range") or "0-").startswith("0-")


def _own(request: Request, session: Session) -> Session:
    if session.upload.repository != request.repository or session.upload.actor != request.actor:
        raise unknown_upload()
    return session
