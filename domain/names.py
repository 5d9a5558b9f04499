"""Names of repositories, tags and sessions, checked once against the grammars of the specification."""

import re
from typing import NewType

RepositoryName = NewType("RepositoryName", str)
TagName = NewType("TagName", str)
UploadId = NewType("UploadId", str)

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_UPLOAD_ID = re.compile(r"[a-z0-9]{26,64}")

REPOSITORY_NAME_LENGTH_MAX = 255


class InvalidName(ValueError):
    """The text does not follow the grammar of a repository name, a tag or an upload id."""


def parse_repository_name(text: str) -> RepositoryName:
    """Raises InvalidName unless `text` is a repository name of at most 255 characters."""
    if len(text) > REPOSITORY_NAME_LENGTH_MAX:
        raise InvalidName(f"a repository name has at most {REPOSITORY_NAME_LENGTH_MAX} characters")
    if not _REPOSITORY.fullmatch(text):
        raise InvalidName(
            "a repository name is made of lower-case letters and digits, joined by single '.', '_', '__' or '-', "
            "in components separated by '/'"
        )
    return RepositoryName(text)


def parse_tag(text: str) -> TagName:
    """Raises InvalidName unless `text` is a tag: at most 128 of [a-zA-Z0-9._-], not starting with '.' or '-'."""
    if not _TAG.fullmatch(text):
        raise InvalidName("a tag has 1 to 128 letters, digits, '_', '.' or '-', and starts with none of '.' and '-'")
    return TagName(text)


def parse_upload_id(text: str) -> UploadId:
    """Raises InvalidName unless `text` looks like a session id that this registry gives out."""
    if not _UPLOAD_ID.fullmatch(text):
        raise InvalidName("not an upload id")
    return UploadId(text)
