"""A read-only database, as after a failover or by an operator's choice: writes are 503, reads go on."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from eventstore import verify
from tests.api import Registry, codes, image, registry_over, sha256
from tests.postgres import Database


@pytest.fixture
def registry(database: Database, tmp_path: Path) -> Iterator[Registry]:
    """A registry that waits for its database only for a short time."""
    with registry_over(database, tmp_path, append_timeout_s="1s", read_timeout_s="1s") as made:
        yield made


def make_read_only(database: Database, value: str) -> None:
    """Make the database read-only ("on") or writable ("off") for new connections, and end those that are open."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("SET default_transaction_read_only = off")
        (name,) = admin.execute("SELECT current_database()").fetchone() or ("",)
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (name,),
        )


def test_a_read_only_database_refuses_writes_and_serves_reads(registry: Registry, database: Database) -> None:
    """Every kind of write is 503 UNAVAILABLE and changes nothing. All goes on by itself once writes are taken again.

    Opening an upload writes nothing, so it is answered, and the session goes on later.
    """
    registry.push("u/app", "t", b"layer")
    registry.project()
    body = image(b"{}", b"layer")
    registry.blob("u/app", b"{}")
    opened = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
    tag, layer = "/v2/u/app/manifests/t", f"/v2/u/app/blobs/{sha256(b'layer')}"
    manifest = f"/v2/u/app/manifests/{registry.head(tag).headers['Docker-Content-Digest']}"
    head = registry.head_position()
    make_read_only(database, "on")
    refused = {
        "mount": registry.post(f"/v2/u/new/blobs/uploads/?mount={sha256(b'layer')}&from=u/app"),
        "monolithic": registry.post(f"/v2/u/app/blobs/uploads/?digest={sha256(b'new')}", data=b"new"),
        "finish": registry.put(f"{opened}?digest={sha256(b'late')}", data=b"late"),
        "manifest": registry.manifest("u/app", "other", body),
        "delete tag": registry.delete(tag),
        "delete manifest": registry.delete(manifest),
        "delete blob": registry.delete(layer),
    }
    opened_meanwhile = registry.post("/v2/u/app/blobs/uploads/")
    assert opened_meanwhile.status_code == 202
    found = {name: (answer.status_code, codes(answer)) for name, answer in refused.items()}
    assert found == dict.fromkeys(refused, (503, ["UNAVAILABLE"]))
    for path in (tag, layer, "/v2/u/app/tags/list", "/v2/_catalog"):
        assert registry.get(path).status_code == 200, path
    ready = registry.get("/readyz")
    assert (ready.status_code, ready.get_json()["problems"]) == (503, ["database: takes no writes (it is read-only)"])
    make_read_only(database, "off")
    assert registry.head_position() == head
    assert registry.get("/readyz").status_code == 200
    assert registry.manifest("u/app", "other", body).status_code == 201
    for location in (opened, opened_meanwhile.headers["Location"]):
        assert registry.put(f"{location}?digest={sha256(b'late')}", data=b"late").status_code == 201
    assert verify.verify(database.app_url) == []
