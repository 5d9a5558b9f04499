"""What every question is given: the read models, the bytes, and the limits of answers."""

from dataclasses import dataclass

from blobstore.interface import BlobStore
from projections.reader import Reader
from query_api.cache import AnswerCache


@dataclass(frozen=True, slots=True)
class Context:
    """The rooms that a question needs; made once a process."""

    reader: Reader
    blobs: BlobStore
    cache: AnswerCache
    list_page_max: int = 10_000
    referrers_page_max: int = 1_000
