"""Events name the trace of the request that they came from."""

import pytest

from domain.media_types import OCI_MANIFEST
from tests.api import Registry, image

CONFIG = b"{}"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("traceparent", "trace"), [(f"00-{TRACE}-00f067aa0ba902b7-01", TRACE), ("00-malformed", None), (None, None)]
)
def test_every_event_of_a_request_names_its_trace(
    registry: Registry, traceparent: str | None, trace: str | None
) -> None:
    """The manifest's and the tag's; a request whose header is malformed is served as if it had none."""
    registry.blob("u/app", CONFIG)
    before = registry.head_position()
    answer = registry.manifest(
        "u/app", "v1", image(CONFIG), OCI_MANIFEST, headers={} if traceparent is None else {"traceparent": traceparent}
    )
    assert answer.status_code == 201
    events = registry.rooms.store.read_log(before, 10)
    assert [(each.type, each.correlation_id) for each in events] == [("ManifestPushed", trace), ("TagMoved", trace)]
    assert registry.rooms.store.read_log(0, before)[-1].correlation_id is None
