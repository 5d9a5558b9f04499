"""Runs a real Apache Kafka for tests: one broker for a run, which is its own controller and ends with the run.

TAGTRAIL_TEST_KAFKA=HOST:PORT names a broker that is there already. Tests that kill a broker start one of their own
anyway.
"""

import ctypes
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka.errors import KafkaError

from eventstore.feed.kafka import make_admin
from eventstore.feed.settings import KafkaSettings
from tests.clients.programs import missing, tools

# The client logs each try to connect to a broker that is away, and tests of such brokers would log little else.
logging.getLogger("kafka").setLevel(logging.CRITICAL)
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
USER, PASSWORD = "tagtrail", "secret"
_PROPERTIES = """
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl},SSL://127.0.0.1:{ssl},CONTROLLER://127.0.0.1:{control}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{control}
log.dirs={folder}/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  username="{user}" password="{password}" user_{user}="{password}";
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
"""
_LOGGING = """
Configuration:
  Appenders:
    Console: {name: C, PatternLayout: {pattern: "%d %p %c %m%n"}}
  Loggers:
    Root: {level: warn, AppenderRef: {ref: C}}
"""


class Broker:
    """One broker in a folder of its own, on ports of its own, which it keeps over restarts."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tt-kafka-", dir="/tmp"))
        self._ports = dict(zip(("port", "sasl", "ssl", "control"), _free_ports(4), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        self._make_certificate()
        values = {**self._ports, "folder": self.folder, "user": USER, "password": PASSWORD}
        (self.folder / "server.properties").write_text(_PROPERTIES.format(**values))
        (self.folder / "log4j2.yaml").write_text(_LOGGING)
        self._format()

    @property
    def bootstrap(self) -> str:
        """The address for clients without a login."""
        return f"127.0.0.1:{self._ports['port']}"

    @property
    def sasl_bootstrap(self) -> str:
        """The address for clients that log in as USER by PLAIN."""
        return f"127.0.0.1:{self._ports['sasl']}"

    @property
    def ssl_bootstrap(self) -> str:
        """The address for clients that check the broker's certificate against `ca_file`."""
        return f"127.0.0.1:{self._ports['ssl']}"

    @property
    def ca_file(self) -> Path:
        """The certificate, in PEM, which signs itself."""
        return self.folder / "ca.pem"

    def settings(self, prefix: str, how: str = "PLAINTEXT") -> KafkaSettings:
        """The settings to reach it by one of its listeners."""
        if how == "SASL_PLAINTEXT":
            return KafkaSettings(
                self.sasl_bootstrap, how, sasl_mechanism="PLAIN", username=USER, password=PASSWORD, prefix=prefix
            )
        if how == "SSL":
            return KafkaSettings(self.ssl_bootstrap, how, ca_file=str(self.ca_file), prefix=prefix)
        return KafkaSettings(self.bootstrap, prefix=prefix)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._java(
                    *("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                    f"-Dlog4j2.configurationFile={self.folder}/log4j2.yaml",
                    main="kafka.Kafka",
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it answers; raises RuntimeError with its log if it ended or does not answer in time."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.cluster_id()
                return
            except KafkaError as problem:
                if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Kafka did not start: {(self.folder / 'log').read_text()}") from problem

    def cluster_id(self) -> str:
        """The id that clients are told; raises KafkaError while it does not answer."""
        client = make_admin(KafkaSettings(self.bootstrap))
        try:
            return str(client.describe_cluster()["cluster_id"])
        finally:
            client.close()

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask it to end, and end it by SIGKILL if it does not; its folder stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def restart(self) -> None:
        """Start it over what it holds, on the same ports; stop it first if it runs."""
        self.stop()
        self.start()

    def wipe(self) -> None:
        """Forget everything, the cluster's id included; the broker must be stopped."""
        shutil.rmtree(self.folder / "data")
        self._format()

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _java(self, *options: str, main: str, arguments: tuple[str, ...] = ()) -> list[str]:
        properties = str(self.folder / "server.properties")
        given = (*arguments, "-c", properties) if arguments else (properties,)
        return ["java", *options, "-cp", f"{tools.KAFKA.folder}/*", main, *given]

    def _format(self) -> None:
        cluster = secrets.token_urlsafe(16)
        # `--cluster-id=ID` in one word: one random id in 64 begins with a dash and would be taken for an option.
        done = subprocess.run(
            self._java(main="kafka.tools.StorageTool", arguments=("format", f"--cluster-id={cluster}")),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"Kafka's storage was not formatted: {done.stdout.decode()}{done.stderr.decode()}")

    def _make_certificate(self) -> None:
        ca, key = self.folder / "ca.pem", self.folder / "key.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
                *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(ca)),
            ],
            check=True,
            capture_output=True,
        )
        (self.folder / "server.pem").write_text(key.read_text() + ca.read_text())


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _end_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


@contextmanager
def running_broker() -> Iterator[Broker]:
    """Run a broker during the block."""
    made = Broker()
    try:
        made.start()
        yield made
    finally:
        made.close()


def _require_kafka() -> None:
    absent = [name for name in ("java", "openssl") if tools.find_program(name) is None]
    if not tools.KAFKA.folder.exists():
        absent.append(f"Kafka {tools.KAFKA.version} (make tools)")
    if absent:
        missing(f"cannot be had here: {', '.join(absent)}")


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[str]:
    """HOST:PORT of a broker for the whole run."""
    given = os.environ.get("TAGTRAIL_TEST_KAFKA")
    if given:
        yield given
        return
    _require_kafka()
    with running_broker() as made:
        yield made.bootstrap


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker that this test may kill."""
    _require_kafka()
    with running_broker() as made:
        yield made


@pytest.fixture
def topic_prefix() -> str:
    """The prefix of this test's topics."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def kafka(kafka_server: str, topic_prefix: str) -> KafkaSettings:
    """The run's broker, with topics of this test's own."""
    return KafkaSettings(kafka_server, prefix=topic_prefix)
