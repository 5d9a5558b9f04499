"""The command line against a running server: its output, its exit status, and its words about wrong input."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from domain.media_types import OCI_MANIFEST
from eventstore import schema
from eventstore.window import REVISION
from projections.builds import admin
from projections.models import audit
from tests.api import image, sha256
from tests.folded import wait_folded
from tests.postgres import ADMIN, Server
from tests.servers import RunningServer, a_relay, started
from tests.waiting import eventually

pytestmark = pytest.mark.xdist_group("cli")
COMMAND = [sys.executable, "-m", "tagtrail"]
WAIT_MAX_S = 60.0


@dataclass(frozen=True)
class Ran:
    """A command that has ended: its exit status and output."""

    status: int
    out: str
    err: str

    def lines(self) -> list[Any]:
        """Its output as JSON values, one for each line."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment(**more: str) -> dict[str, str]:
    """The environment without options of ours, with lines wide enough for tables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAGTRAIL_")}
    return kept | {"COLUMNS": "200"} | more


def run(*arguments: object, before: Sequence[str] = (), **variables: str) -> Ran:
    """Run `tagtrail`, by a program and its options if they stand before it, in the folder / and wait for its end."""
    done = subprocess.run(
        [*before, *COMMAND, *(str(each) for each in arguments)],
        env=environment(**variables),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=2 * WAIT_MAX_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Pushed:
    """Two images pushed to one tag of a repository, and a layer that both share."""

    server: RunningServer
    repository: str
    layer: str
    first: str
    second: str

    def ask(self, *arguments: object) -> Ran:
        """Run a command on the server's data folder."""
        return run(*arguments, "--data", self.server.data)


@pytest.fixture(scope="module")
def pushed(server: RunningServer) -> Pushed:
    """A repository whose tag `1` moved once, folded by the projector."""
    repository = f"cli/{uuid.uuid4().hex[:12]}"
    layer = b"layer"
    digests = []
    for config in (b'{"n": 1}', b'{"n": 2}'):
        for blob in (layer, config):
            url = f"{server.url}/v2/{repository}/blobs/uploads/?digest={sha256(blob)}"
            assert requests.post(url, blob, timeout=30).status_code == 201
        body = image(config, layer)
        url = f"{server.url}/v2/{repository}/manifests/1"
        answer = requests.put(url, body, headers={"Content-Type": OCI_MANIFEST}, timeout=30)
        assert answer.status_code == 201, answer.text
        digests.append(sha256(body))
    wait_folded(server.database_url)
    return Pushed(server, repository, sha256(layer), digests[0], digests[1])


def test_the_program_tells_its_version_and_lists_its_commands() -> None:
    assert run("--version").out == f"tagtrail, version {version('tagtrail')}\n"
    shown = run("--help").out
    for command in (
        *("serve", "api", "relay", "projector", "keeper", "config", "db", "events", "projections", "history", "blobs"),
    ):
        assert f"\n  {command} " in shown
    assert "Exit status: 0" in shown


@pytest.mark.parametrize(
    "command",
    [
        ["serve"],
        ["config", "show"],
        ["db", "init"],
        ["db", "migrate"],
        ["api"],
        ["relay"],
        ["projector"],
        ["keeper"],
        ["db", "erase-addresses"],
        ["events", "tail"],
        ["events", "schemas"],
        ["projections", "swap-back"],
        ["projections", "replay-parked"],
        ["projections", "status"],
        ["projections", "verify"],
        ["projections", "rebuild"],
        ["history"],
        ["blobs", "refs"],
    ],
)
def test_every_command_has_help(command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.status == 0
    assert done.out.startswith(f"Usage: python -m tagtrail {' '.join(command)}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["srve"], "no such command: srve; did you mean serve?"),
        (["serve", "--listen", "5000"], "--listen: must be HOST:PORT"),
        (["serve", "--listen", "0.0.0.0:5000"], "--insecure-open"),
        (["serve", "--wrkers", "2"], "--workers"),
        (["serve", "--config", "/nonexistent.toml"], "/nonexistent.toml cannot be read"),
        (["events", "tail", "--from", "0"], "0 is not in the range x>=1"),
        (["events", "tail", "-o", "xml"], "'table', 'json'"),
        (["history", "Not A Name"], "Not A Name"),
        (["history", "app:.bad"], "app:.bad"),
        (["history", "app", "--what", "tags"], "tags"),
        (["history", "app", "--since", "yesterday"], "2026-01-31"),
        (["blobs", "refs", "sha256:12"], "sha256"),
        (["db", "init"], "--admin-url"),
        (["db", "init", "--admin-url", "localhost"], "postgresql://postgres:PASSWORD@HOST"),
    ],
)
def test_wrong_usage_names_what_is_wrong_and_ends_with_2(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.status == 2
    assert said in done.err
    assert done.out == ""


@pytest.mark.parametrize("command", [["events", "tail"], ["projections", "status"], ["history", "app"]])
def test_without_a_running_server_it_says_how_to_start_one(command: list[str], tmp_path: Path) -> None:
    done = run(*command, "--data", tmp_path)
    assert done.status == 1
    assert f"no server runs on {tmp_path}: start it with `tagtrail serve --data {tmp_path}`" in done.err


def test_config_show_tells_each_value_and_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('log_format = "json"\n')
    variables = {"TAGTRAIL_DATABASE": "postgresql://tagtrail_app:s3cret@db/tagtrail", "TAGTRAIL_CONFIG": str(file)}
    done = run("config", "show", "--workers", "3", "-o", "json", **variables)
    (shown,) = done.lines()
    assert shown["workers"] == {"value": 3, "from": "flag --workers"}
    assert shown["log_format"] == {"value": "json", "from": f"file {file}"}
    assert shown["listen"] == {"value": "127.0.0.1:5000", "from": "default"}
    assert shown["database"]["value"] == "postgresql://tagtrail_app:***@db/tagtrail"
    table = run("config", "show", **variables).out
    assert "s3cret" not in done.out + table
    assert f"file {file}" in table


def test_events_tail_prints_one_json_object_an_event(pushed: Pushed) -> None:
    events = pushed.ask("events", "tail", "--repo", pushed.repository, "--from", "1", "-o", "json").lines()
    assert [set(each) for each in events] == [
        {"position", "stream", "version", "type", "recorded_at", "actor", "data"}
    ] * len(events)
    assert [each["position"] for each in events] == sorted(each["position"] for each in events)
    moves = [each for each in events if each["type"] == "TagMoved"]
    assert [each["stream"] for each in moves] == [f"tag-{pushed.repository}:1"] * 2
    assert [each["version"] for each in moves] == [1, 2]
    assert pushed.second in json.dumps(moves[1]["data"])
    assert {each["actor"] for each in events} == {"anonymous"}


def test_events_tail_prints_the_log_of_uploads_apart(pushed: Pushed) -> None:
    """The history has nothing of a session; its own log is read by the same options."""
    repository = f"{pushed.repository}/uploads"
    location = requests.post(f"{pushed.server.url}/v2/{repository}/blobs/uploads/", timeout=30).headers["Location"]
    assert requests.patch(pushed.server.url + location, b"chunk", timeout=30).status_code == 202
    closing = f"{pushed.server.url}{location}?digest={sha256(b'chunk')}"
    assert requests.put(closing, timeout=30).status_code == 201
    told = pushed.ask("events", "tail", "--uploads", "--repo", repository, "--from", "1", "-o", "json").lines()
    assert [each["type"] for each in told] == ["UploadStarted", "ChunkAppended", "UploadCommitted"]
    assert {each["stream"].partition("-")[0] for each in told} == {"upload"}
    assert pushed.ask("events", "tail", "--uploads", "-n", "1", "-o", "json").lines() == told[-1:]
    history = pushed.ask("events", "tail", "--repo", repository, "--from", "1", "-o", "json").lines()
    assert [each["type"] for each in history] == ["RepositoryCreated", "BlobLinked"]


def test_events_tail_begins_where_it_is_told_to_and_shows_the_last_ones_otherwise(pushed: Pushed) -> None:
    every = pushed.ask("events", "tail", "--from", "1", "-o", "json").lines()
    later = pushed.ask("events", "tail", "--from", "4", "-o", "json").lines()
    assert later == every[3:]
    assert pushed.ask("events", "tail", "-n", "2", "-o", "json").lines() == every[-2:]
    table = pushed.ask("events", "tail", "-n", "2").out.splitlines()
    assert [line.split()[0] for line in table] == [str(each["position"]) for each in every[-2:]]


@contextmanager
def following(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Run a command that does not end by itself during the block; it is killed afterwards, and its pipes closed."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True, bufsize=1) as process:
        try:
            yield process
        finally:
            process.kill()


def test_events_tail_follows_until_ctrl_c_and_ends_quietly(pushed: Pushed) -> None:
    command = [*COMMAND, "events", "tail", "--follow", "-n", "1", "-o", "json", "--data", str(pushed.server.data)]
    with following(command) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        blob = uuid.uuid4().bytes
        url = f"{pushed.server.url}/v2/{pushed.repository}/blobs/uploads/?digest={sha256(blob)}"
        assert requests.post(url, blob, timeout=30).status_code == 201
        later = json.loads(process.stdout.readline())
        assert later["position"] == first["position"] + 1
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WAIT_MAX_S)
        assert process.returncode == 130
        assert said.strip() == ""


def test_a_reader_that_goes_away_ends_it_quietly(pushed: Pushed) -> None:
    stop = threading.Event()

    def append() -> None:
        while not stop.wait(0.1):
            blob = uuid.uuid4().bytes
            url = f"{pushed.server.url}/v2/{pushed.repository}/blobs/uploads/?digest={sha256(blob)}"
            requests.post(url, blob, timeout=30)

    appender = threading.Thread(target=append)
    command = [*COMMAND, "events", "tail", "--from", "1", "--follow", "--data", str(pushed.server.data)]
    with following(command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        appender.start()
        try:
            assert process.wait(WAIT_MAX_S) == 1
            assert process.stderr.read() == ""
        finally:
            stop.set()
            appender.join()


def test_projections_status_names_every_model_and_the_head(pushed: Pushed) -> None:
    head = admin.status(pushed.server.database_url).head
    wait_folded(pushed.server.database_url, head)
    (found,) = pushed.ask("projections", "status", "-o", "json").lines()
    assert found["head"] >= head
    assert {"catalog", "tags", "manifests", "referrers", "audit"} <= {each["name"] for each in found["builds"]}
    table = pushed.ask("projections", "status", "--partitions").out
    for each in found["builds"]:
        assert each["id"] in table
        assert len(each["partitions"]) == 16
    assert f"the log stands at {head}" in table


def test_projections_status_tells_of_a_relay_only_while_there_is_one(pushed: Pushed) -> None:
    """One that once worked, before the registry was run without Kafka, is of no interest any more."""
    with psycopg.connect(pushed.server.database_url, autocommit=True) as connection:
        connection.execute("UPDATE feed.relay SET published_at = now(), problem = 'KafkaTimeoutError'")
        try:
            without = pushed.ask("projections", "status").out
            with a_relay(pushed.server.database_url):
                beside_one = pushed.ask("projections", "status").out
        finally:
            connection.execute("UPDATE feed.relay SET published_at = NULL, problem = NULL")
    assert "relay" not in without
    assert "relay: published up to 0, lag" in beside_one
    assert "relay: uploads published up to 0, lag" in beside_one
    assert "relay: KafkaTimeoutError" in beside_one


def test_projections_swap_back_makes_the_build_before_live_again(pushed: Pushed) -> None:
    assert pushed.ask("projections", "rebuild", "links", "--keep", "10m").status == 0
    done = pushed.ask("projections", "swap-back", "links")
    assert done.status == 0
    assert "is live" in done.out
    assert pushed.ask("projections", "verify", "links").status == 0
    assert pushed.ask("projections", "rebuild", "links", "--keep", "for ever").status == 2


def test_replay_parked_with_nothing_parked_is_well_done(pushed: Pushed) -> None:
    done = pushed.ask("projections", "replay-parked")
    assert (done.status, done.out) == (0, "")


def test_metrics_tell_where_log_and_read_models_stand(pushed: Pushed) -> None:
    head = admin.status(pushed.server.database_url).head
    wait_folded(pushed.server.database_url, head)
    found = pushed.server.metrics()
    assert found["tagtrail_database_up"] == 1
    assert found["tagtrail_log_position"] >= head
    assert found['tagtrail_projection_lag_events{model="tags"}'] == 0
    # The projector's process has counted this, and an API worker tells it.
    assert found['tagtrail_feed_events_total{source="store"}'] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["relay"], "name the database"),
        (["projector"], "name the database"),
        (["keeper"], "name the database"),
        (["db", "erase-addresses"], "--before"),
        (["db", "erase-addresses", "--before", "yesterday"], "must be a date or a time"),
        (["api", "--listen", "127.0.0.1:0"], "a port of its own"),
        (["projector", "--kafka", "nowhere"], "HOST:PORT"),
        (["relay", "--metrics", "here"], "HOST:PORT"),
        (["serve", "--kafka-security-protocol", "sasl_ssl"], "needs kafka_username and kafka_password"),
        (["serve", "--kafka-security-protocol", "tls"], "must be one of"),
        (["serve", "--kafka-ca-file", "/nowhere"], "a file that is there"),
        (["serve", "--kafka-topic-prefix", "a b"], "must be letters"),
    ],
)
def test_processes_by_themselves_say_what_they_need(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.status == 2
    assert said in done.err


def test_a_projector_of_an_unknown_model_and_a_relay_without_kafka_are_refused(pushed: Pushed) -> None:
    url = pushed.server.database_url
    assert "there is no read model 'tgas'" in run("projector", "--only", "tgas", "--database", url).err
    assert "name the brokers" in run("relay", "--database", url).err


def test_the_password_of_kafka_is_never_shown() -> None:
    shown = run("config", "show", TAGTRAIL_KAFKA_PASSWORD="hunter2").out
    assert "hunter2" not in shown
    assert "***" in shown


def test_projections_verify_finds_all_equal_and_a_changed_row(pushed: Pushed) -> None:
    done = pushed.ask("projections", "verify", "-o", "json")
    assert done.status == 0
    assert all(each["equal"] for each in done.lines())
    with psycopg.connect(pushed.server.database_url) as connection:
        spoil = f"UPDATE {audit.table.fullname} SET actor = 'mallory' WHERE repository = %s"
        spoilt = connection.execute(spoil.encode(), (pushed.repository,)).rowcount
    assert spoilt > 0
    done = pushed.ask("projections", "verify", "audit")
    assert done.status == 1
    assert "DIFFERS" in done.out
    assert f"0 missing, 0 unexpected, {spoilt} differing" in done.out
    assert "mallory" in done.out
    assert pushed.ask("projections", "rebuild", "audit").status == 0
    assert pushed.ask("projections", "verify", "audit").status == 0


def test_projections_rebuild_all_keeps_every_answer(pushed: Pushed) -> None:
    before = pushed.ask("history", pushed.repository, "-o", "json").out
    done = pushed.ask("projections", "rebuild", "all")
    assert done.status == 0
    assert "tags" in done.out
    assert pushed.ask("projections", "verify", "all").status == 0
    assert pushed.ask("history", pushed.repository, "-o", "json").out == before


@pytest.mark.parametrize("command", ["verify", "rebuild"])
def test_an_unknown_read_model_is_named(pushed: Pushed, command: str) -> None:
    done = pushed.ask("projections", command, "tgas")
    assert done.status == 2
    assert "tgas" in done.err
    assert "tags" in done.err


def test_history_of_a_tag_tells_from_which_to_which_digest_newest_first(pushed: Pushed) -> None:
    moves = pushed.ask("history", f"{pushed.repository}:1", "-o", "json").lines()
    assert [(each["from_digest"], each["to_digest"]) for each in moves] == [
        (pushed.first, pushed.second),
        (None, pushed.first),
    ]
    table = pushed.ask("history", f"{pushed.repository}:1").out
    assert pushed.second[:19] in table
    older = pushed.ask("history", f"{pushed.repository}:1", "-n", "1")
    assert f"--before {moves[0]['position']}" in older.out


def test_history_is_narrowed_by_actor_kind_and_time(pushed: Pushed) -> None:
    place = f"{pushed.repository}:1"
    moves = pushed.ask("history", place, "-o", "json").lines()
    assert pushed.ask("history", place, "--what", "tag-moved", "-o", "json").lines() == moves[:1]
    both = ("--what", "tag-moved", "--what", "tag-created")
    assert pushed.ask("history", place, *both, "--actor", moves[0]["actor"], "-o", "json").lines() == moves
    assert pushed.ask("history", place, "--until", moves[0]["recorded_at"], "-o", "json").lines() == moves[1:]
    since = pushed.ask("history", "--since", moves[0]["recorded_at"], *both, "-n", "10000", "-o", "json").lines()
    assert moves[0] in since
    assert moves[1] not in since
    assert pushed.repository in pushed.ask("history", "--what", "tag-moved", "-n", "10000").out
    nobody = pushed.ask("history", pushed.repository, "--actor", "nobody")
    assert (nobody.status, "there is no such change" in nobody.err) == (1, True)


def test_history_of_what_never_was_is_a_problem(pushed: Pushed) -> None:
    done = pushed.ask("history", "never/was")
    assert done.status == 1
    assert "nothing is known of never/was" in done.err


def test_blobs_refs_tells_who_has_a_blob(pushed: Pushed) -> None:
    done = pushed.ask("blobs", "refs", pushed.layer, "-o", "json")
    assert done.status == 0
    for each in (pushed.repository, pushed.first, pushed.second):
        assert each in done.out
    assert pushed.repository in pushed.ask("blobs", "refs", pushed.layer).out


@pytest.fixture
def plain(postgres_server: Server) -> Iterator[str]:
    """An administrator's URL of a Postgres and the name of a database that is not there yet."""
    name = f"made_{uuid.uuid4().hex[:8]}"
    yield name
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def test_db_init_makes_a_database_to_serve_from_and_runs_again_without_harm(
    plain: str, postgres_server: Server, tmp_path: Path
) -> None:
    admin_url = postgres_server.url("postgres", ADMIN)
    first = run("db", "init", "--admin-url", admin_url, "--database-name", plain, "--new-passwords")
    assert first.status == 0
    app_url, owner_url = (
        next(word.split("=", 1)[1] for word in first.out.split() if word.startswith(f"{name}="))
        for name in ("TAGTRAIL_DATABASE", "TAGTRAIL_OWNER_URL")
    )
    assert schema.check(app_url) == []
    again = run("db", "init", "--admin-url", admin_url, "--database-name", plain)
    assert again.status == 0
    assert "keep their passwords" in again.out
    assert "postgresql://" not in again.out
    migrated = run("db", "migrate", TAGTRAIL_OWNER_URL=owner_url)
    assert migrated.out == f"The schema is at {REVISION}.\n"
    assert serves(tmp_path / "data", app_url)


def serves(data: Path, database: str) -> bool:
    """True if a server over this database gets ready and starts no Postgres of its own."""
    with started(data, {"TAGTRAIL_DATABASE": database}) as server:
        server.wait_ready()
        status = run("projections", "status", "--database", database)
        alone = "postgres" not in server.children() and status.status == 0
        assert server.stop() == 0
        return alone


def test_serve_refuses_a_role_that_could_change_events(plain: str, postgres_server: Server, tmp_path: Path) -> None:
    admin_url = postgres_server.url("postgres", ADMIN)
    assert run("db", "init", "--admin-url", admin_url, "--database-name", plain).status == 0
    done = run("serve", "--listen", "127.0.0.1:0", "--data", tmp_path, "--database", postgres_server.url(plain, ADMIN))
    assert done.status == 1
    assert "could change events" in done.err


def test_serve_refuses_a_database_without_a_schema_and_says_what_to_do(postgres_server: Server, tmp_path: Path) -> None:
    url = postgres_server.url("postgres", ADMIN)
    done = run("serve", "--listen", "127.0.0.1:0", "--data", tmp_path, "--database", url)
    assert done.status == 1
    assert "holds no event store" in done.err
    assert "tagtrail db init" in done.err


def test_a_database_that_comes_later_is_waited_for(postgres_server: Server, plain: str, tmp_path: Path) -> None:
    admin_url = postgres_server.url("postgres", ADMIN)
    assert run("db", "init", "--admin-url", admin_url, "--database-name", plain).status == 0
    app_url = postgres_server.url(plain, "tagtrail_app")
    link = tmp_path / "later"
    late = app_url.replace(str(postgres_server.folder), str(link))
    with started(tmp_path / "data", {"TAGTRAIL_DATABASE": late}) as server:
        eventually(lambda: "waiting for the database" in server.log.read_text(), what=server.log.read_text)
        link.symlink_to(postgres_server.folder)
        server.wait_ready()
        assert server.stop() == 0
