"""A worker takes as many connections and downloads as its options say, as far as files and threads allow."""

import logging
import os
import resource
from pathlib import Path

import pytest

from tagtrail.config import Settings, resolve
from tagtrail.server import limits
from tagtrail.server.limits import Capacity, capacity, warn_of_low_limits

UNLIMITED = resource.RLIM_INFINITY


def settings() -> Settings:
    """Two workers of 256 threads, 8192 connections and 4096 downloads."""
    given = {"workers": 2, "threads": 256, "connections": 8192, "downloads_total": 4096}
    return resolve(given, {}).settings


@pytest.mark.parametrize(
    ("files", "expected", "raised"),
    [
        ((1024, 20_000), Capacity(8192, 4096), 13_312),
        ((1024, UNLIMITED), Capacity(8192, 4096), 13_312),
        ((1024, 4096), Capacity(2304, 768), 4096),
        ((256, 256), Capacity(256, 1), 256),
        ((20_000, 20_000), Capacity(8192, 4096), None),
        ((UNLIMITED, UNLIMITED), Capacity(8192, 4096), None),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_needed_and_possible(
    monkeypatch: pytest.MonkeyPatch, files: tuple[int, int], expected: Capacity, raised: int | None
) -> None:
    soft: list[int] = []
    monkeypatch.setattr(limits, "_threads_allowed", lambda: None)
    monkeypatch.setattr(resource, "getrlimit", lambda _: files)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: soft.append(wanted[0]))
    assert capacity(settings()) == expected
    assert soft == ([] if raised is None else [raised])


@pytest.mark.parametrize(("threads", "downloads"), [(None, 4096), (30_000, 4096), (4096, 1344), (1000, 1)])
def test_downloads_are_as_many_as_threads_may_be_started_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, threads: int | None, downloads: int
) -> None:
    monkeypatch.setattr(limits, "open_files", lambda wanted: wanted)
    monkeypatch.setattr(limits, "_threads_allowed", lambda: threads)
    found = capacity(settings())
    assert found == Capacity(8192, downloads)
    with caplog.at_level(logging.WARNING):
        warn_of_low_limits(settings(), found)
    told = [f"limits of open files or threads allow {downloads} downloads a worker, not 4096"]
    assert caplog.messages == ([] if downloads == 4096 else told)


@pytest.mark.parametrize(("user", "expected"), [(0, None), (1000, 3000)])
def test_the_limit_of_a_users_processes_does_not_bind_the_superuser(
    monkeypatch: pytest.MonkeyPatch, user: int, expected: int | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (3000, 3000))
    monkeypatch.setattr(limits, "_cgroup_limits", lambda: iter(()))
    assert limits._threads_allowed() == expected


@pytest.mark.parametrize(
    ("line", "folder"), [("0::/a/b", "a/b"), ("5:cpu,pids:/a/b", "pids/a/b"), ("0::/elsewhere", "a/b")]
)
def test_the_least_limit_of_the_control_groups_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, folder: str
) -> None:
    group = tmp_path / folder
    group.mkdir(parents=True)
    (group / "pids.max").write_text("max\n")
    (group.parent / "pids.max").write_text("700\n")
    own = tmp_path / "cgroup"
    own.write_text(f"12:memory:/a/b\n{line}\n")
    monkeypatch.setattr(limits, "_CGROUPS", tmp_path)
    monkeypatch.setattr(limits, "_OWN_GROUPS", own)
    assert list(limits._cgroup_limits()) == ([] if "elsewhere" in line else [700])
