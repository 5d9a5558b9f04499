"""Parameters and answers of /api/v1. These schemas are the only description of their shape."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, validate

from projections.models.audit import KINDS
from protocol.moments import parse_moment

PAGE_DEFAULT = 100
PAGE_MAX = 1_000


class Moment(fields.Field[datetime]):
    """A date or a time; UTC unless it says otherwise."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> datetime:
        try:
            return parse_moment(value)
        except ValueError as problem:
            raise ValidationError(str(problem)) from problem


class Kinds(fields.Field[list[str]]):
    """Kinds of changes, separated by commas."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> list[str]:
        kinds = value.split(",")
        if not set(kinds) <= set(KINDS):
            raise ValidationError(f"must be some of {', '.join(KINDS)}")
        return sorted(set(kinds))


class ChangesParameters(Schema):
    """The parameters of the history of all repositories: conditions, all of which a change meets, and the page.

    `since` is the first moment, `until` the one after the last.
    """

    class Meta:
        """An unknown parameter is refused, because a misspelt filter would answer everything."""

        unknown = RAISE

    actor = fields.String(load_default=None, validate=validate.Regexp(r"\A[^\x00]{1,255}\Z"))
    what = Kinds(load_default=None)
    since = Moment(load_default=None)
    until = Moment(load_default=None)
    before = fields.Integer(load_default=None, strict=False, validate=validate.Range(min=1, max=2**62))
    n = fields.Integer(load_default=PAGE_DEFAULT, validate=validate.Range(min=1, max=PAGE_MAX))


class HistoryParameters(ChangesParameters):
    """The parameters of a repository's history."""

    tag = fields.String(load_default=None, validate=validate.Regexp(r"\A[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z"))


class HistoryEntry(Schema):
    """One change. `from` and `to` are digests, null where there was or is none."""

    position = fields.Integer(required=True)
    time = fields.AwareDateTime(attribute="recorded_at", required=True, format="iso")
    actor = fields.String(required=True)
    what = fields.String(required=True)
    tag = fields.String(allow_none=True)
    from_digest = fields.String(data_key="from", allow_none=True)
    to_digest = fields.String(data_key="to", allow_none=True)
    request_id = fields.String()


class Change(HistoryEntry):
    """One change of some repository."""

    repository = fields.String(required=True)


class Changes(Schema):
    """A page of the history of all repositories, newest first.

    `next` is the address of the next page, null on the last one. A page may have no entry and have a next one.
    """

    entries = fields.List(fields.Nested(Change))
    next = fields.String(allow_none=True)


class History(Schema):
    """A page of a repository's history, as `Changes`."""

    repository = fields.String(required=True)
    tag = fields.String(allow_none=True)
    entries = fields.List(fields.Nested(HistoryEntry))
    next = fields.String(allow_none=True)


class ReferencesParameters(Schema):
    """The parameters of a blob's references."""

    class Meta:
        """An unknown parameter is refused."""

        unknown = RAISE

    after = fields.String(load_default=None, validate=validate.Length(max=600))
    n = fields.Integer(load_default=PAGE_DEFAULT, validate=validate.Range(min=1, max=PAGE_MAX))


class ManifestReference(Schema):
    """One manifest that names the blob, and as what."""

    class Meta:
        """Rows may have more columns than the answer shows."""

        unknown = EXCLUDE

    repository = fields.String(required=True)
    digest = fields.String(required=True)
    role = fields.String(required=True)


class BlobReferences(Schema):
    """The users of a blob: repositories that link it, manifests that name it, and how many those are.

    `count` is at most 10,000; `count_exact` is false if there are more. At most 1,000 repositories are listed;
    `more_repositories` says whether there are others.
    """

    digest = fields.String(required=True)
    count = fields.Integer(required=True)
    count_exact = fields.Boolean(required=True)
    repositories = fields.List(fields.String())
    more_repositories = fields.Boolean(required=True)
    manifests = fields.List(fields.Nested(ManifestReference))
    next = fields.String(allow_none=True)
