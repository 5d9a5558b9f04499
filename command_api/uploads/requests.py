"""Upload sessions over HTTP: start, chunk, finish, status, cancel."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from blobstore.interface import NoSpace, StagedUpload, UploadBusy, UploadMissing
from command_api.blobs.commits import SessionChanged, commit_blob, other_digest
from command_api.blobs.mounts import mount
from command_api.context import Context
from command_api.receiving import receive
from command_api.refusals import refused
from command_api.uploads.answers import headers_of, out_of_order, session_headers, unknown_upload
from command_api.uploads.finding import find, log_of_new, seen
from domain import upload as uploads
from domain.decision import Decision, Refusal
from domain.digests import DEFAULT_ALGORITHM, Digest, UnsupportedAlgorithm, new_hash
from domain.features import SESSION_IDS
from domain.names import RepositoryName, UploadId
from domain.session_id import RANDOM_BYTES, SessionId
from domain.upload import AppendChunk, CancelUpload, OpenUpload, Session, Upload
from eventstore.features import READERS, Feature
from protocol.errors import Code, WireError, error
from protocol.messages import Answer, Request, digest_or_error, empty, storage_full
from protocol.ranges import ByteRange, InvalidChunkRange, parse_chunk_range

_SESSION_IDS = Feature(SESSION_IDS, READERS | {"keeper"})
_COMMIT_WAIT_S = 2.0
_COMMIT_LOOK_S = 0.02


def start(context: Context, request: Request) -> Answer:
    """POST …/blobs/uploads/: open a session, or take a whole blob (`digest`), or mount one (`mount`)."""
    repository = request.repository
    algorithm = _algorithm_hint(request)
    mounted = request.parameter("mount")
    if mounted is not None:
        digest = digest_or_error(mounted)
        if mount(context, request, repository, digest):
            return _created(repository, digest)
    elif request.parameter("digest") is not None:
        return _take_whole(context, request, repository)
    if context.store.features.lacking(_SESSION_IDS):
        name = _open_by_event(context, request, repository, algorithm)
    else:
        name = _give_out(context, request, repository, algorithm)
    headers = headers_of(repository, name, 0)
    if context.limits.chunk_bytes_min:
        headers.append(("OCI-Chunk-Min-Length", str(context.limits.chunk_bytes_min)))
    return empty(202, headers)


def _give_out(context: Context, request: Request, repository: RepositoryName, algorithm: str | None) -> str:
    """The id of a new session. It proves by itself that it was given out, so nothing is written."""
    key = context.seal_keys.current()
    said = SessionId(key.id, context.clock(), algorithm, UploadId(secrets.token_hex(RANDOM_BYTES)))
    return said.sealed(key.secret, repository, request.actor)


def _open_by_event(context: Context, request: Request, repository: RepositoryName, algorithm: str | None) -> str:
    """The id of a new session that has a file and an event: processes of the release before take no others."""
    upload = UploadId(context.new_upload_id())
    context.blobs.create(upload)
    command = OpenUpload(upload, repository, request.actor, algorithm, log_of_new(context))
    if context.carry_out(request, uploads.decide_opening(command)) is not None:
        raise error(Code.UNAVAILABLE, "the session could not be opened, try again")
    return upload


def status(context: Context, request: Request) -> Answer:
    """GET or HEAD of a session: how far it stands.

    A session whose bytes are gone, as a crash between a commit's rename and its append leaves it, is gone for every
    verb that would go on with it.
    """
    session = _current(context, request)
    return Answer(204, session_headers(request, session.upload.offset))


def cancel(context: Context, request: Request) -> Answer:
    """DELETE of a session."""
    session = find(context, request)
    decision = _decided(request, uploads.decide_cancellation(session, CancelUpload()))
    if context.carry_out(request, decision) is not None:
        raise _overtaken(context, request)
    context.blobs.discard(UploadId(session.upload.id))
    return Answer(204)


def append_chunk(context: Context, request: Request) -> Answer:
    """PATCH of a session: the next chunk, or a whole stream of bytes."""
    session = seen(context, request)
    _require_open(session)
    try:
        return _append_chunk(context, request, session)
    except WireError:
        if session.started is not None:
            _require_new(context, request, find(context, request))
        raise


def _append_chunk(context: Context, request: Request, session: Session) -> Answer:
    announced = _chunk_range(request, session.upload)
    with _staged(context, request, session) as (writer, session):
        upload = session.upload
        _require_next(request, announced, writer, upload)
        received = _receive_chunk(context, request, writer, announced, upload)
        if received:
            with context.work_gate:
                writer.sync()
            command = AppendChunk(upload.offset, received)
            decision = _decided(request, uploads.decide_chunk(session, command))
            if context.carry_out(request, decision) is not None:
                _take_away(context, request, writer, session)
                raise _overtaken(context, request)
            session = uploads.with_chunk(session, command)
            context.sessions.learn(session)
        elif session.started is not None:
            # Nothing is appended, so the log has not told whether the session is new.
            writer.remove()
            session = _current(context, request)
    return empty(202, session_headers(request, session.upload.offset))


def finish(context: Context, request: Request) -> Answer:
    """PUT of a session with `digest`: an optional last chunk, then the blob."""
    session = seen(context, request)
    try:
        digest = _digest_parameter(request, session.upload)
        if session.upload.is_committed_as(str(digest)):
            return _replay(context, session, digest)
        _require_open(session)
        return _finish_open(context, request, session, digest)
    except WireError:
        # The same PUT, sent twice, may have been answered meanwhile: then both have succeeded.
        settled = _settled_upload(context, request)
        named = request.parameter("digest")
        if named and settled.upload.is_committed_as(named):
            return _replay(context, settled, digest_or_error(named))
        _require_open(settled)
        if session.started is not None:
            _require_new(context, request, settled)
        raise


def _settled_upload(context: Context, request: Request) -> Session:
    """The session after a failed PUT. Bytes that are gone from an open session are being committed by another
    request, which needs a moment for its append; or a crash lost them, and the session stays open.
    """
    session = find(context, request)
    deadline = time.monotonic() + _COMMIT_WAIT_S
    while session.upload.is_open and not _has_bytes(context, session) and time.monotonic() < deadline:
        time.sleep(_COMMIT_LOOK_S)
        session = find(context, request)
    return session


def _finish_open(context: Context, request: Request, session: Session, digest: Digest) -> Answer:
    announced = _chunk_range(request, session.upload)
    with _staged(context, request, session) as (writer, session):
        upload = session.upload
        _require_next(request, announced, writer, upload)
        _receive_chunk(context, request, writer, announced, upload)
        with context.work_gate:
            found = writer.digest(digest.algorithm)
        if found != digest:
            writer.rollback(upload.offset)
            raise other_digest(digest, found, session_headers(request, upload.offset))
        commit_blob(context, request, request.repository, digest, writer, session)
        context.sessions.forget(upload.id)
    return _created(request.repository, digest)


def _take_whole(context: Context, request: Request, repository: RepositoryName) -> Answer:
    """POST with `digest`: the body is the blob; no session is ever visible."""
    digest = digest_or_error(request.parameter("digest") or "")
    upload = UploadId(context.new_upload_id())
    context.blobs.create(upload, durable=False)
    try:
        with context.blobs.open(upload, 0, digest.algorithm) as writer:
            receive(context, request, writer)
            with context.work_gate:
                found = writer.digest(digest.algorithm)
            if found != digest:
                raise other_digest(digest, found, [])
            commit_blob(context, request, repository, digest, writer)
    finally:
        context.blobs.discard(upload)
    return _created(repository, digest)


def _replay(context: Context, session: Session, digest: Digest) -> Answer:
    """The same PUT again after its answer was lost: 201 again while the session would not have expired."""
    if session.is_idle(context.limits.upload_expiry, context.clock()):
        raise unknown_upload()
    return _created(RepositoryName(session.upload.repository), digest)


def _algorithm_hint(request: Request) -> str | None:
    hint = request.parameter("digest-algorithm")
    if hint is not None:
        try:
            new_hash(hint)
        except UnsupportedAlgorithm as problem:
            raise error(Code.DIGEST_INVALID, str(problem)) from problem
    return hint


def _digest_parameter(request: Request, upload: Upload) -> Digest:
    text = request.parameter("digest")
    if not text:
        headers = session_headers(request, upload.offset)
        raise error(Code.DIGEST_INVALID, "the digest parameter is missing", headers=headers)
    return digest_or_error(text)


def _overtaken(context: Context, request: Request) -> WireError:
    """The answer when another request was first: 416 with the session's new state, or 404 if that ended it."""
    session = _current(context, request)
    return out_of_order(request, session.upload.offset, "another request has changed this upload")


def _decided(request: Request, decision: Decision | Refusal) -> Decision:
    """The decision to append; raises the answer for a command that is refused."""
    if isinstance(decision, Refusal):
        raise refused(request, decision)
    return decision


def _require_open(session: Session) -> None:
    if not session.upload.is_open:
        raise unknown_upload()


def _current(context: Context, request: Request) -> Session:
    """The session as the log has it; 404 for one that has ended, and for one whose bytes are gone."""
    session = find(context, request)
    _require_open(session)
    if not _has_bytes(context, session):
        raise unknown_upload()
    return session


def _require_new(context: Context, request: Request, session: Session) -> None:
    """Raises 416 or 404 for a request that took the session to be new, if it is not."""
    if session.started is None:
        raise _overtaken(context, request)


def _has_bytes(context: Context, session: Session) -> bool:
    """True if the staging file has the bytes that the log has; a new session needs none."""
    if session.started is not None:
        return True
    staged = context.blobs.staged(UploadId(session.upload.id))
    return staged is not None and staged >= session.upload.offset


@contextmanager
def _staged(context: Context, request: Request, session: Session) -> Iterator[tuple[StagedUpload, Session]]:
    """The session's staging file, locked, with the session as it stands under the lock (rule: one writer a session)."""
    upload = session.upload
    algorithm = upload.digest_algorithm or DEFAULT_ALGORITHM
    try:
        new = session.started is not None
        with context.blobs.open(UploadId(upload.id), upload.offset, algorithm, new=new) as writer:
            if not writer.ends_at_offset:
                # These are bytes that were not recorded, or of a chunk that has been recorded meanwhile: only the log
                # can tell.
                session = find(context, request)
                _require_open(session)
                if session.upload.offset != upload.offset:
                    raise out_of_order(request, session.upload.offset, "another request has moved this upload on")
            yield writer, session
    except SessionChanged as problem:
        raise _overtaken(context, request) from problem
    except UploadBusy as problem:
        raise out_of_order(request, upload.offset, "another request is writing to this session") from problem
    except UploadMissing as problem:
        raise unknown_upload() from problem
    except NoSpace as problem:
        raise storage_full(session_headers(request, upload.offset)) from problem


def _chunk_range(request: Request, upload: Upload) -> ByteRange | None:
    header = request.header("Content-Range")
    if header is None:
        return None
    try:
        return parse_chunk_range(header)
    except InvalidChunkRange as problem:
        raise out_of_order(request, upload.offset, str(problem)) from problem


def _require_next(request: Request, announced: ByteRange | None, writer: StagedUpload, upload: Upload) -> None:
    refusal = None if announced is None else uploads.check_chunk(upload, announced.start)
    if refusal is not None:
        writer.rollback(upload.offset)
        raise refused(request, refusal)


def _receive_chunk(
    context: Context, request: Request, writer: StagedUpload, announced: ByteRange | None, upload: Upload
) -> int:
    """Store the body behind what the session has. On any failure the session stands where it stood."""
    try:
        received = receive(context, request, writer, exactly=announced.length if announced else None)
    except WireError as problem:
        writer.rollback(upload.offset)
        headers = (*problem.headers, *session_headers(request, upload.offset))
        raise WireError(*problem.problems, status=problem.status, headers=headers) from problem
    except NoSpace:
        # Gives the space back: a session may be kept for a day, and others need it now.
        writer.rollback(upload.offset)
        raise
    return received


def _take_away(context: Context, request: Request, writer: StagedUpload, session: Session) -> None:
    """After a refusal, leave no file of a session of which nothing was recorded, or which has ended.

    The request that ended it could not remove the file, because this one holds it.
    """
    if session.started is not None or not find(context, request).upload.is_open:
        writer.remove()


def _created(repository: RepositoryName, digest: Digest) -> Answer:
    return empty(
        201,
        [("Location", f"/v2/{repository}/blobs/{digest}"), ("Docker-Content-Digest", str(digest))],
    )
