"""The answers for commands that the domain refuses: one for each reason, and for a command that was overtaken."""

import json
from collections.abc import Iterator

import pytest

from command_api.refusals import refused
from domain import events
from domain.decision import Reason, Refusal
from domain.link import BlobUnknown
from domain.manifest import ManifestUnknown, SizeDiffers, TooManyTags
from domain.preconditions import PreconditionFailed
from domain.references import NamedMissing
from domain.tag import TagUnknown
from domain.upload import OutOfOrder, StillUsed, UploadEnded
from protocol.messages import Request
from protocol.routes import Kind, Route

REQUEST = Request("PUT", Route(Kind.MANIFEST, "a", "v1"), {"HTTP_IF_MATCH": '"sha256:1"'}, "request")
ANSWERS: dict[Reason, tuple[int, str, object]] = {
    NamedMissing("sha256:2"): (404, "MANIFEST_BLOB_UNKNOWN", "sha256:2"),
    SizeDiffers("sha256:2", 3, 4): (400, "SIZE_INVALID", {"digest": "sha256:2"}),
    ManifestUnknown("sha256:2"): (404, "MANIFEST_UNKNOWN", {"reference": "sha256:2"}),
    TagUnknown("v1"): (404, "MANIFEST_UNKNOWN", {"reference": "v1"}),
    BlobUnknown("sha256:2"): (404, "BLOB_UNKNOWN", {"digest": "sha256:2"}),
    UploadEnded(): (404, "BLOB_UPLOAD_UNKNOWN", None),
    OutOfOrder(100): (416, "BLOB_UPLOAD_INVALID", None),
    PreconditionFailed(): (412, "DENIED", {"condition": {"If-Match": '"sha256:1"'}}),
}
# The handler or the keeper acts on it, and no client is told.
NOT_TOLD = {TooManyTags, StillUsed}


@pytest.mark.parametrize("reason", ANSWERS, ids=lambda each: type(each).__name__)
def test_a_reason_has_its_status_code_and_detail(reason: Reason) -> None:
    problem = refused(REQUEST, Refusal((reason,)))
    (entry,) = json.loads(problem.body())["errors"]
    assert (problem.status, entry["code"], entry["detail"]) == ANSWERS[reason]


def test_everything_missing_is_told_at_once_and_nothing_twice() -> None:
    problem = refused(REQUEST, Refusal((NamedMissing("1"), NamedMissing("2"), NamedMissing("1"))))
    assert [each["detail"] for each in json.loads(problem.body())["errors"]] == ["1", "2"]


def test_who_was_overtaken_may_try_again() -> None:
    problem = refused(REQUEST, Refusal())
    assert (problem.status, problem.headers) == (503, (("Retry-After", "1"),))


def test_no_reason_is_without_an_answer() -> None:
    """A reason that nobody translates would be 500."""
    assert events.event_types()

    def all_of(cls: type[Reason]) -> Iterator[type[Reason]]:
        for each in cls.__subclasses__():
            yield each
            yield from all_of(each)

    # A data class with slots is made twice, and the first one stays among the subclasses.
    names = {each.__name__ for each in all_of(Reason)}
    assert names == {type(each).__name__ for each in ANSWERS} | {each.__name__ for each in NOT_TOLD}
