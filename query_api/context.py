"""The parts that every question uses: the read models, the log, the bytes, and the limits of answers."""

from dataclasses import dataclass

from blobstore.interface import BlobStore
from eventstore.store import Store
from projections.reader import Reader
from query_api.cache import AnswerCache


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that a question uses; made once for each process."""

    reader: Reader
    store: Store
    blobs: BlobStore
    cache: AnswerCache
    list_page_max: int = 10_000
    referrers_page_max: int = 1_000
