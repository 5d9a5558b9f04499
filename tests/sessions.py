"""Tells by which name files and streams know an upload session."""

from domain.names import UploadId
from domain.session_id import claimed


def upload_of(location: str) -> UploadId:
    """The part of a session's id, or of its location, that names its staging file and its stream."""
    return claimed(location.partition("?")[0].rpartition("/")[2]).claims.upload
