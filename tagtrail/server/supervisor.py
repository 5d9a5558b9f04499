"""`tagtrail serve`: one process that starts, watches and ends all others."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from blobstore.disk import DiskBlobStore
from domain.features import HANDLED
from eventstore import roles, schema
from eventstore.board import cells, registrar
from eventstore.board.registrar import Registrar
from eventstore.feed.waking import Waker
from eventstore.types import SchemaOutdated, StoreError, StoreUnavailable
from projections.engine.setup import ensure_tables
from tagtrail import logs
from tagtrail.config import HANDED_VARIABLE, Settings, hand_over, mask_url
from tagtrail.hosts import names_given
from tagtrail.server import embedded
from tagtrail.server.allocator import ALLOCATOR_SETTINGS, ALLOCATOR_VARIABLE
from tagtrail.server.children import Child, Watchdog
from tagtrail.server.counting import FOLDER_VARIABLE, fresh_folder
from tagtrail.server.embedded import EmbeddedPostgres, EmbeddedPostgresFailed
from tagtrail.server.lock import DataFolderLock, settings_file
from tagtrail.server.meeting import SOCKET_FILE, MeetingPlace
from tagtrail.server.processes import APPENDER_VARIABLE, BOARD_VARIABLE, PARENT_VARIABLE

APPENDER, DATABASE = "appender", "postgres"
METRICS_FOLDER = "metrics"
# It is woken by signals, also when a child ends. Should one be lost, it looks by itself.
LOOK_S = 5.0
STOP_S = 8.0
# All who append have ended by then.
APPENDER_STOP_S = 0.5
DATABASE_STOP_S = 1.5
READY_TIMEOUT_S = 30.0
DATABASE_TIMEOUT_S = 60.0


class CannotServe(Exception):
    """Serving is not possible or not safe; the message says why and what to do."""


class Supervisor:
    """One run of `tagtrail serve`."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._children: list[Child] = []
        self._stopping = 0
        self._keep = -1
        self._board: Registrar | None = None
        self._meeting: MeetingPlace | None = None
        self._waker = Waker()

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP. Raises CannotServe and errors of the start."""
        logs.configure(self._settings, "supervisor")
        self._prepare_folder()
        with _usable(self._settings.data):
            lock = DataFolderLock(self._settings.data)
        try:
            with reserve(self._settings) as reserved:
                self._settings = _listening_on(self._settings, int(reserved.getsockname()[1]))
                self._keep = lock.file
                self._serve(Watchdog([lock.file]))
        finally:
            lock.release()

    def _serve(self, watchdog: Watchdog) -> None:
        self._take_signals()
        handed = settings_file(self._settings.data)
        try:
            with _usable(self._settings.data):
                handed.unlink(missing_ok=True)  # left by a killed server, whose port and database may not be ours
                DiskBlobStore(self._settings.data).prepare()
                served = self._settings.with_database(self._database(watchdog))
                hand_over(served, handed)
                self._board = self._register_board(served)
                self._meeting = _meeting_place(served.data) if served.appender else None
                self._start_children(served, watchdog)
            if self._wait_ready(watchdog):
                self._say(_greeting(served))
            while not self._stopping:
                self._waker.clear()
                self._check(watchdog)
                self._sleep()
        except (EmbeddedPostgresFailed, CannotServe):
            # If the user asked for the end during the start, its failure is not reported.
            if not self._stopping:
                raise
        finally:
            self._stop()
            # The next start removes it too. A disk that became read-only must not hide why this server ended.
            with suppress(OSError):
                handed.unlink(missing_ok=True)
                if self._meeting is not None:
                    self._meeting.close()
            watchdog.dismiss()

    def _check(self, watchdog: Watchdog) -> None:
        for child in self._children:
            child.check()
        watchdog.check()

    def _take_signals(self) -> None:
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, self._on_signal)
        # Without a handler nobody is woken when a child ends.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.wakes, warn_on_full_buffer=False)

    def _sleep(self) -> None:
        """Wait for a signal, or until a child is to be started again. A signal since the last `clear` counts too."""
        if not self._stopping:
            due = min((each.due_s() for each in self._children), default=LOOK_S)
            arrives = select.poll()
            arrives.register(self._waker.fileno(), select.POLLIN)
            arrives.poll(1000 * min(due, LOOK_S))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping += 1

    def _prepare_folder(self) -> None:
        data = self._settings.data
        try:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as problem:
            raise CannotServe(
                f"cannot make the data folder {data}: {problem.strerror}; give --data another one"
            ) from problem
        if not os.access(data, os.W_OK | os.X_OK):
            raise CannotServe(
                f"the data folder {data} cannot be written to by this user, or is on a disk that is read-only; "
                "give it to this user (chown), or give --data another one"
            )

    def _database(self, watchdog: Watchdog) -> str:
        """The application's URL of the database, which was found current and safe to serve with."""
        url = self._settings.database
        if url is None:
            url = self._start_embedded(watchdog)
        try:
            problems = self._checked(url)
            if problems:
                raise CannotServe("the database is not safe to serve with:\n  " + "\n  ".join(problems))
            schema.note_cluster(url)
            ensure_tables(url)
        except SchemaOutdated as problem:
            raise CannotServe(
                f"{mask_url(url)}: {problem} (`tagtrail db init` makes a database, `tagtrail db migrate` renews one)"
            ) from problem
        except StoreError as problem:
            raise CannotServe(f"{mask_url(url)}: {problem}") from problem
        return url

    def _register_board(self, served: Settings) -> Registrar | None:
        """The change board, where this server alone appends. The lock of the data folder is held, by which no process
        of an earlier run lives.
        """
        owner = registrar.owner_of(served.data)
        try:
            if not cells.available() or not (self._settings.database is None or served.single_node):
                registrar.renounce(served.database_url, owner)
                return None
            # A worker that is replaced may still be ending while its successor runs. One place is the keeper's, and
            # the last one the appender's.
            board = Registrar(served.database_url, owner, places=2 * served.workers + 2)
            board.start()
        except StoreError as problem:
            raise CannotServe(f"{mask_url(served.database_url)}: {problem}") from problem
        return board

    def _checked(self, url: str) -> list[str]:
        """The faults that make the database unsafe. It is waited for, because it may be starting with the machine."""
        deadline = time.monotonic() + DATABASE_TIMEOUT_S
        told = False
        while True:
            try:
                return schema.check(url, HANDLED)
            except StoreUnavailable as problem:
                if time.monotonic() > deadline or self._stopping:
                    raise
                if not told:
                    logs.get_logger().warning("waiting for the database", database=mask_url(url), problem=str(problem))
                    told = True
                time.sleep(0.5)

    def _start_embedded(self, watchdog: Watchdog) -> str:
        from eventstore.migrating import migrate

        connections = self._settings.workers * (self._settings.database_pool + 2) + 32
        postgres = EmbeddedPostgres(self._settings.data, connections)
        postgres.prepare()
        child = Child(DATABASE, postgres.start, signal.SIGINT, watchdog)
        process = child.start()
        self._children.append(child)
        postgres.wait_ready(process, lambda: self._stopping > 0)
        admin = postgres.url(embedded.ADMIN, "postgres")
        roles.create_roles(admin, embedded.DATABASE, embedded.OWNER, embedded.APPLICATION)
        owner = postgres.url(embedded.OWNER)
        migrate(owner, app_role=embedded.APPLICATION)
        return postgres.url()

    def _start_children(self, served: Settings, watchdog: Watchdog) -> None:
        # The options were read from variables, perhaps a password too; from here on they are in a private file.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TAGTRAIL_")}
        environment |= {HANDED_VARIABLE: str(settings_file(served.data)), PARENT_VARIABLE: str(os.getpid())}
        if self._board is not None:
            environment[BOARD_VARIABLE] = str(self._board.path)
        environment.setdefault(ALLOCATOR_VARIABLE, ALLOCATOR_SETTINGS)
        environment[FOLDER_VARIABLE] = str(fresh_folder(served.data / METRICS_FOLDER))

        def starter(name: str, module: str) -> "Callable[[], subprocess.Popen[bytes]]":
            command, files = [sys.executable, "-m", module], [self._keep]
            if name == APPENDER and self._meeting is not None:
                command.append(str(self._meeting.listener))
                files.append(self._meeting.listener)
            return lambda: subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, pass_fds=files, start_new_session=True
            )

        modules = {}
        if self._meeting is not None:
            environment[APPENDER_VARIABLE] = str(self._meeting.path)
            modules[APPENDER] = "tagtrail.server.appender"
        modules["api"] = "tagtrail.server.api"
        if served.kafka is not None:
            modules["relay"] = "tagtrail.server.relay"
        # The projector's process is the keeper too.
        if served.projector:
            modules["projector"] = "tagtrail.server.projector"
        else:
            modules["keeper"] = "tagtrail.server.keeper"
        for name, module in modules.items():
            child = Child(name, starter(name, module), signal.SIGTERM, watchdog)
            self._children.append(child)
            child.start()

    def _wait_ready(self, watchdog: Watchdog) -> bool:
        """Wait until the API answers. False if the user stopped the server before."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        address = _address(self._settings)
        while not self._stopping:
            if _answers(f"http://{address}/readyz"):
                return True
            self._check(watchdog)
            if time.monotonic() > deadline:
                raise CannotServe("the API did not get ready in time; see the log lines above")
            time.sleep(0.05)
        return False

    def _stop(self) -> None:
        """End API and projector first, then the appender, the database last. A second signal makes it quick."""
        if not self._children and self._board is None:
            return
        logs.get_logger().info("stopping")
        self._end([each for each in self._children if each.name not in (APPENDER, DATABASE)], STOP_S)
        self._end([each for each in self._children if each.name == APPENDER], APPENDER_STOP_S)
        if self._board is not None:
            self._board.stop()
        self._end([each for each in self._children if each.name == DATABASE], DATABASE_STOP_S)
        logs.get_logger().info("stopped")

    def _end(self, children: list[Child], seconds: float) -> None:
        for child in children:
            child.terminate()
        deadline = time.monotonic() + seconds
        while not all(each.ended() for each in children):
            if time.monotonic() > deadline or self._stopping > 1:
                break
            time.sleep(0.02)
        for child in children:
            child.kill()


@contextmanager
def _usable(data: Path) -> Iterator[None]:
    """Raises CannotServe, with advice, if a file of the data folder cannot be made, read or written."""
    try:
        yield
    except OSError as problem:
        raise CannotServe(
            f"cannot use the data folder {data}: {problem}; see that its disk has space and can be written to, "
            "and that it belongs to this user with all that is in it, or give --data another one"
        ) from problem


def _meeting_place(data: Path) -> MeetingPlace:
    try:
        return MeetingPlace(data)
    except OSError as problem:
        raise CannotServe(
            f"cannot make the Unix socket {data / SOCKET_FILE}: {problem}; some file systems take none, "
            "then give --data a folder on another one, or serve with --no-appender"
        ) from problem


@contextmanager
def reserve(settings: Settings) -> Iterator[socket.socket]:
    """Hold the address for this server alone, without listening on it. Raises CannotServe if another listens there.

    The workers share their port by SO_REUSEPORT, and so a second server of the same user could get half of the requests
    unnoticed. So this socket first listens alone, which fails beside any other listener. Then it admits sockets that
    share, and stops listening but stays bound, so that no second server can do the same.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            _bind(held, settings)
            held.listen(1)
        except OSError as problem:
            raise CannotServe(
                f"cannot listen on {settings.listen}: {problem.strerror}; give --listen another address or port"
            ) from problem
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.shutdown(socket.SHUT_RD)
        yield held


def _bind(held: socket.socket, settings: Settings) -> None:
    """Bind to the address. If the kernel chose the port, it is bound again by number; shutdown would release it."""
    for last in (False, False, False, True):
        with socket.socket(held.family, socket.SOCK_STREAM) as probe:
            probe.bind((settings.host, 0))
            free = int(probe.getsockname()[1])
        try:
            held.bind((settings.host, settings.port or free))
            return
        except OSError:
            if settings.port or last:
                raise


def _listening_on(settings: Settings, port: int) -> Settings:
    """The settings with the port that the kernel chose, if they asked for any (port 0)."""
    host = settings.listen.rpartition(":")[0]
    return replace(settings, listen=f"{host}:{port}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own server
            return bool(answer.status == 200)
    except OSError:
        return False


def _address(settings: Settings) -> str:
    """The URL by which this machine reaches the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    return f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"


def _greeting(settings: Settings) -> str:
    address = f"localhost:{settings.port}" if settings.loopback else settings.listen
    database = (
        "embedded, in it" if settings.database and "tagtrail_app@/tagtrail?host=" in settings.database else "yours"
    )
    return f"""
tagtrail listens on {settings.listen}. Its data is in {settings.data.resolve()} (database: {database}).
{_names(settings)}
  push:     docker tag IMAGE {address}/you/IMAGE:1 && docker push {address}/you/IMAGE:1
  history:  tagtrail history you/IMAGE:1
  stop:     Ctrl-C
"""


def _names(settings: Settings) -> str:
    """A line that tells to which names the server answers and how to add some, if it refuses others."""
    if not settings.loopback:
        return ""
    names = ", ".join(["localhost", *names_given(settings)])
    return f"It answers to loopback addresses and {names}; more names: --allow-host NAME.\n"
