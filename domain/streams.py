"""Names of streams, and values of their refs: the only place where they are spelled.

Each tag, manifest and link has a stream of its own (rule: pushes do not conflict).
"""

from domain.digests import Digest
from domain.names import RepositoryName, TagName, UploadId

LIVE = "live"
PRESENT = "present"
OPEN = "open"
UPLOAD_PREFIX = "upload-"
BLOB_PREFIX = "blob-"
LINK_PREFIX = "link-"
REPOSITORY_PREFIX = "repo-"


def upload_stream(upload: UploadId | str) -> str:
    """The stream of one upload session; its ref is OPEN until it is committed, cancelled or expired."""
    return f"{UPLOAD_PREFIX}{upload}"


def blob_stream(digest: Digest | str) -> str:
    """The stream of one blob, shared by all repositories that link it; its ref is LIVE while its bytes are kept."""
    return f"{BLOB_PREFIX}{digest}"


def link_stream(repository: RepositoryName | str, digest: Digest | str) -> str:
    """The stream of a repository's right to a blob; its ref is LIVE or nothing."""
    return f"{LINK_PREFIX}{repository}@{digest}"


def manifest_stream(repository: RepositoryName | str, digest: Digest | str) -> str:
    """The stream of one manifest in one repository; its ref is PRESENT or nothing."""
    return f"manifest-{repository}@{digest}"


def tag_prefix(repository: RepositoryName | str) -> str:
    """The beginning of the names of all tag streams of a repository."""
    return f"tag-{repository}:"


def tag_stream(repository: RepositoryName | str, tag: TagName | str) -> str:
    """The stream of one tag; its ref is the stream of the manifest that it names, or nothing."""
    return tag_prefix(repository) + tag


def repository_stream(repository: RepositoryName | str) -> str:
    """The stream of one repository; its ref is LIVE once it was created."""
    return f"{REPOSITORY_PREFIX}{repository}"


def digest_of_manifest_stream(stream: str) -> str:
    """The digest text in the name of a manifest stream, which is the ref of a tag."""
    return stream.rpartition("@")[2]


def repository_of_link_stream(stream: str) -> RepositoryName:
    """The repository in the name of a link's stream."""
    return RepositoryName(stream.removeprefix(LINK_PREFIX).rpartition("@")[0])
