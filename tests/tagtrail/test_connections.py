"""How many connections a worker takes: as many as were asked for, if the limit of open files can be raised so far."""

import resource

import pytest

from tagtrail.config import resolve
from tagtrail.server.api import connections_max

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "expected", "raised"),
    [
        ((1024, 20_000), 8192, 8960),
        ((1024, UNLIMITED), 8192, 8960),
        ((1024, 4096), 3328, 4096),
        ((256, 256), 256, 256),
        ((20_000, 20_000), 8192, None),
        ((UNLIMITED, UNLIMITED), 8192, None),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_needed_and_possible(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], expected: int, raised: int | None
) -> None:
    soft: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: soft.append(wanted[0]))
    settings = resolve({"threads": 256, "connections": 8192}, {}).settings
    assert connections_max(settings) == expected
    assert soft == ([] if raised is None else [raised])
