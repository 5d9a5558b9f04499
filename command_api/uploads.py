"""Upload sessions over HTTP: start, chunk, finish, status, cancel."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from blobstore.interface import NoSpace, StagedUpload, UploadBusy, UploadMissing
from command_api.commits import SessionChanged, commit_blob, other_digest
from command_api.context import Context, new_event
from command_api.mounts import mount
from command_api.receiving import receive
from command_api.sessions import Session
from domain import upload as uploads
from domain.digests import DEFAULT_ALGORITHM, Digest, UnsupportedAlgorithm, new_hash
from domain.event import Event
from domain.names import InvalidName, RepositoryName, UploadId, parse_upload_id
from domain.streams import OPEN, upload_stream
from domain.upload import Upload, UploadStarted
from eventstore.types import KEEP, NONE_YET, Exact, NewEvent, Refused
from protocol.errors import Code, WireError, error
from protocol.messages import Answer, Headers, Request, digest_or_error, empty, storage_full
from protocol.ranges import ByteRange, InvalidChunkRange, parse_chunk_range, uploaded_range

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
    upload = UploadId(context.new_upload_id())
    started = UploadStarted(upload, repository, algorithm)
    state = uploads.start(started, request.actor)
    context.blobs.create(upload)
    event = new_event(
        upload_stream(upload), repository, started, mode=NONE_YET, ref=OPEN, state=uploads.to_state(state)
    )
    outcome = context.append(request, [event])
    if isinstance(outcome, Refused):
        raise error(Code.UNAVAILABLE, "the session could not be opened, try again")
    context.sessions.learn(Session(1, state))
    headers = _session_headers(state)
    if context.limits.chunk_bytes_min:
        headers.append(("OCI-Chunk-Min-Length", str(context.limits.chunk_bytes_min)))
    return empty(202, headers)


def status(context: Context, request: Request) -> Answer:
    """GET or HEAD of a session: how far it stands.

    A session whose bytes are gone, as a crash between a commit's rename and its append leaves it, is gone for every
    verb that would go on with it.
    """
    upload = _open_upload(context, request).upload
    staged = context.blobs.staged(UploadId(upload.id))
    if staged is None or staged < upload.offset:
        raise _unknown_upload()
    return Answer(204, _session_headers(upload))


def cancel(context: Context, request: Request) -> Answer:
    """DELETE of a session."""
    session = _open_upload(context, request)
    outcome = context.append(request, [_next(session, uploads.cancel(session.upload))])
    if isinstance(outcome, Refused):
        raise _overtaken(context, request)
    context.blobs.discard(UploadId(session.upload.id))
    return Answer(204)


def append_chunk(context: Context, request: Request) -> Answer:
    """PATCH of a session: the next chunk, or a whole stream of bytes."""
    session = _seen_upload(context, request)
    _require_open(session.upload)
    announced = _chunk_range(request, session.upload)
    with _staged(context, request, session) as (writer, session):
        upload = session.upload
        _require_next(announced, upload)
        received = _receive_chunk(context, request, writer, announced, upload)
        if received:
            with context.work_gate:
                writer.sync()
            happened = uploads.append_chunk(upload, upload.offset, received)
            outcome = context.append(request, [_next(session, happened)])
            if isinstance(outcome, Refused):
                raise _overtaken(context, request)
            upload = uploads.evolve(upload, happened)
            context.sessions.learn(Session(session.version + 1, upload))
    return empty(202, _session_headers(upload))


def finish(context: Context, request: Request) -> Answer:
    """PUT of a session with `digest`: an optional last chunk, then the blob."""
    session = _seen_upload(context, request)
    digest = _digest_parameter(request, session.upload)
    if session.upload.is_committed_as(str(digest)):
        return _replay(context, request, session, digest)
    _require_open(session.upload)
    try:
        return _finish_open(context, request, session, digest)
    except WireError as problem:
        # The same PUT, sent twice, may have been answered meanwhile: then both have succeeded.
        session = _settled_upload(context, request, problem)
        if session.upload.is_committed_as(str(digest)):
            return _replay(context, request, session, digest)
        raise


def _settled_upload(context: Context, request: Request, problem: WireError) -> Session:
    """The session after a failed PUT. Bytes that are gone from an open session are being committed by another
    request, which needs a moment for its append; or a crash lost them, and the session stays open.
    """
    session = _find_upload(context, request)
    deadline = time.monotonic() + _COMMIT_WAIT_S
    gone = problem.problems[0].code is Code.BLOB_UPLOAD_UNKNOWN
    while gone and session.upload.is_open and time.monotonic() < deadline:
        time.sleep(_COMMIT_LOOK_S)
        session = _find_upload(context, request)
    return session


def _finish_open(context: Context, request: Request, session: Session, digest: Digest) -> Answer:
    announced = _chunk_range(request, session.upload)
    with _staged(context, request, session) as (writer, session):
        upload = session.upload
        _require_next(announced, upload)
        _receive_chunk(context, request, writer, announced, upload)
        with context.work_gate:
            found = writer.digest(digest.algorithm)
        if found != digest:
            writer.rollback(upload.offset)
            raise other_digest(digest, found, _session_headers(upload))
        happened = uploads.commit(upload, str(digest), writer.size)
        commit_blob(
            context,
            request,
            RepositoryName(upload.repository),
            digest,
            writer,
            _next(session, happened),
        )
        context.sessions.learn(Session(session.version + 1, uploads.evolve(upload, happened)))
    return _created(RepositoryName(upload.repository), digest)


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
            commit_blob(context, request, repository, digest, writer, None)
    finally:
        context.blobs.discard(upload)
    return _created(repository, digest)


def _replay(context: Context, request: Request, session: Session, digest: Digest) -> Answer:
    """The same PUT again after its answer was lost: 201 again while the session would not have expired."""
    state = context.store.stream_state(upload_stream(session.upload.id))
    grace: timedelta = context.limits.upload_expiry
    if state.recorded_at is None or context.clock() - state.recorded_at > grace or state.version != session.version:
        raise _unknown_upload()
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
        raise error(Code.DIGEST_INVALID, "the digest parameter is missing", headers=_session_headers(upload))
    return digest_or_error(text)


def _find_upload(context: Context, request: Request) -> Session:
    """The session that the route names, as the log has it; 404 for one of another repository or actor."""
    upload_id = _upload_id(request)
    state = context.store.stream_state(upload_stream(upload_id))
    if state.state is None:
        raise _unknown_upload()
    session = Session(state.version, uploads.from_state(state.state))
    context.sessions.learn(session)
    return _own(request, session)


def _seen_upload(context: Context, request: Request) -> Session:
    """The session as this process remembers it if its staging file has not grown since, otherwise as the log has it.

    For whoever ends with an append at the session's version, which the log refuses if anything else has changed.
    """
    upload_id = _upload_id(request)
    seen = context.sessions.find(upload_id)
    if seen is None or context.blobs.staged(upload_id) != seen.upload.offset:
        return _find_upload(context, request)
    return _own(request, seen)


def _upload_id(request: Request) -> UploadId:
    """The id in the path, behind a name of a repository that is one."""
    _ = request.repository
    try:
        return parse_upload_id(request.route.reference)
    except InvalidName as problem:
        raise _unknown_upload() from problem


def _own(request: Request, session: Session) -> Session:
    if session.upload.repository != request.repository or session.upload.actor != request.actor:
        raise _unknown_upload()
    return session


def _open_upload(context: Context, request: Request) -> Session:
    session = _find_upload(context, request)
    _require_open(session.upload)
    return session


def _require_open(upload: Upload) -> None:
    if not upload.is_open:
        raise _unknown_upload()


def _overtaken(context: Context, request: Request) -> WireError:
    """What to answer when another request was first: 416 with where the session stands now, 404 if that ended it."""
    upload = _find_upload(context, request).upload
    return _out_of_order(upload, "another request has changed this upload") if upload.is_open else _unknown_upload()


@contextmanager
def _staged(context: Context, request: Request, session: Session) -> Iterator[tuple[StagedUpload, Session]]:
    """The session's staging file, locked, with the session as it stands under the lock (rule: one writer a session)."""
    upload = session.upload
    algorithm = upload.digest_algorithm or DEFAULT_ALGORITHM
    try:
        with context.blobs.open(UploadId(upload.id), upload.offset, algorithm) as writer:
            if not writer.ends_at_offset:
                # Bytes that were not recorded, or of a chunk that was meanwhile: only the log can tell.
                session = _open_upload(context, request)
                if session.upload.offset != upload.offset:
                    raise _out_of_order(session.upload, "another request has moved this upload on")
            yield writer, session
    except SessionChanged as problem:
        raise _overtaken(context, request) from problem
    except UploadBusy as problem:
        raise _out_of_order(upload, "another request is writing to this session") from problem
    except UploadMissing as problem:
        raise _unknown_upload() from problem


def _chunk_range(request: Request, upload: Upload) -> ByteRange | None:
    header = request.header("Content-Range")
    if header is None:
        return None
    try:
        return parse_chunk_range(header)
    except InvalidChunkRange as problem:
        raise _out_of_order(upload, str(problem)) from problem


def _require_next(announced: ByteRange | None, upload: Upload) -> None:
    if announced is not None and announced.start != upload.offset:
        raise _out_of_order(upload, f"the next chunk must start at {upload.offset}")


def _receive_chunk(
    context: Context, request: Request, writer: StagedUpload, announced: ByteRange | None, upload: Upload
) -> int:
    """Store the body behind what the session has. On any failure the session stands where it stood."""
    try:
        received = receive(context, request, writer, exactly=announced.length if announced else None)
    except WireError as problem:
        writer.rollback(upload.offset)
        raise WireError(
            *problem.problems, status=problem.status, headers=(*problem.headers, *_session_headers(upload))
        ) from problem
    except NoSpace as problem:
        # Gives the room back: a session may be kept for a day, and others need it now.
        writer.rollback(upload.offset)
        raise storage_full(_session_headers(upload)) from problem
    return received


def _next(session: Session, happened: Event) -> NewEvent:
    evolved = uploads.evolve(session.upload, happened)
    return new_event(
        upload_stream(evolved.id),
        evolved.repository,
        happened,
        mode=Exact(session.version),
        ref=KEEP if evolved.is_open else None,
        state=uploads.to_state(evolved),
    )


def _session_headers(upload: Upload) -> Headers:
    return [
        ("Location", f"/v2/{upload.repository}/blobs/uploads/{upload.id}"),
        ("Range", uploaded_range(upload.offset)),
        ("Docker-Upload-UUID", upload.id),
    ]


def _created(repository: RepositoryName, digest: Digest) -> Answer:
    return empty(
        201,
        [("Location", f"/v2/{repository}/blobs/{digest}"), ("Docker-Content-Digest", str(digest))],
    )


def _unknown_upload() -> WireError:
    return error(Code.BLOB_UPLOAD_UNKNOWN, "no such upload session in this repository")


def _out_of_order(upload: Upload, message: str) -> WireError:
    return error(Code.BLOB_UPLOAD_INVALID, message, status=416, headers=_session_headers(upload))
