"""Upload sessions as files and streams name them, and what happened to them."""

from domain.names import UploadId
from domain.session_id import claimed
from domain.streams import upload_stream
from eventstore.store import Store
from eventstore.types import UPLOADS, Recorded


def upload_of(location: str) -> UploadId:
    """The part of a session's id, or of its location, that names its staging file and its stream."""
    return claimed(location.partition("?")[0].rpartition("/")[2]).claims.upload


def happened_to(store: Store, upload: UploadId | str) -> list[Recorded]:
    """The events of a session, in whichever log it stands."""
    stream = upload_stream(upload)
    chatter = store.read_log(0, 100_000, log=UPLOADS)
    return [*store.read_stream(stream), *(each for each in chatter if each.stream == stream)]
