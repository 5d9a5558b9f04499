"""Writers that change things by one worker of a server and at once ask the other workers for them."""

import os
import random
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from tests.api import sha256
from tests.races.clients import Api, Connection, together
from tests.races.model import Model
from tests.races.player import CONDITIONS, CONDITIONS_OF_DELETE, Player
from tests.races.questions import Question, questions
from tests.races.universe import NAMES, TAGS, Universe, universe
from tests.servers import RunningServer

COMMANDS_A_MODEL = 25
OTHERS_ASKED = 3
READER_PAUSE_S = 0.002
CONNECTS_MAX = 1_000


class WorkerConnection(Connection):
    """A connection to one certain worker. The kernel spreads connections, so it connects until it has that worker."""

    def __init__(self, server: RunningServer, worker: int) -> None:
        super().__init__(server.host)
        self._server = server
        self._worker = worker

    def _connect(self) -> None:
        for _ in range(CONNECTS_MAX):
            self._http.connect()
            # After an answer a worker has accepted the connection, so it is among the worker's files.
            self._http.request("GET", "/healthz")
            self._http.getresponse().read()
            if worker_of(self._server, self._http.sock.getsockname()[1]) == self._worker:
                return
            self._http.close()
        raise AssertionError(f"no connection came to worker {self._worker}")


def worker_of(server: RunningServer, port: int) -> int | None:
    """The worker that holds the server's end of the connection from our port."""
    listening = int(server.host.rpartition(":")[2])
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    inodes = {tuple(int(each.rpartition(":")[2], 16) for each in row[1:3]): row[9] for row in rows}
    held = f"socket:[{inodes[listening, port]}]"
    return next((each for each in server.workers() if held in _files_of(each)), None)


def _files_of(pid: int) -> set[str]:
    found = set()
    for each in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{each}"))
    return found


Apis = Callable[[], Sequence[Api]]


class Writer:
    """A thread that writes by one worker and then asks the others, and a thread that reads all the time.

    Nobody else writes to its repositories, so its model knows every right answer. The reading thread fills caches in
    the middle of writes; of its answers only the status is checked.
    """

    def __init__(self, number: int, apis: Apis, seed: int) -> None:
        self._apis = apis
        self._number = number
        self._chance = random.Random(seed + number)
        self._asked: dict[tuple[str, str], Question] = {}
        self._paths: list[tuple[str, str]] = []
        self._ended = threading.Event()
        self.reads = 0
        self.wrong: list[str] = []

    def run(self, commands: int) -> None:
        """Send so many commands, and after each the questions whose answers it changed."""
        reader = threading.Thread(target=self._read)
        reader.start()
        try:
            apis = self._apis()
            for number in range(commands):
                if number % COMMANDS_A_MODEL == 0:
                    player, things = self._begin(apis)
                told = self._chance.randrange(len(apis))
                command(self._chance, player, apis[told], things)
                self._ask(player.model, [*apis[told + 1 :], *apis[: told + 1]])
        finally:
            self._ended.set()
            reader.join()

    def _begin(self, apis: Sequence[Api]) -> tuple[Player, Universe]:
        salt = secrets.token_hex(6)
        self._asked, self._paths = {}, []
        player, things = Player(Model(f"races/{salt}", NAMES)), universe(salt.encode())
        for data in things.blobs:
            player.upload(apis[0], NAMES[0], data)
        return player, things

    def _ask(self, model: Model, apis: Sequence[Api]) -> None:
        """Ask every worker the questions that have another answer now than last time, then some of the others."""
        now = {(each.method, each.path): each for each in questions(model)}
        changed = [each for place, each in now.items() if self._asked.get(place) != each]
        rest = self._chance.sample(list(now.values()), min(OTHERS_ASKED, len(now)))
        self._asked, self._paths = now, list(now)
        for api in apis:
            for each in (*changed, *rest):
                wrong = each.differs(api.ask(each.method, each.path))
                self.reads += 1
                if wrong is not None:
                    self.wrong.append(wrong)

    def _read(self) -> None:
        chance = random.Random(-self._number)
        apis = self._apis()
        while not self._ended.wait(READER_PAUSE_S):
            if paths := self._paths:
                method, path = chance.choice(paths)
                answer = chance.choice(apis).ask(method, path)
                if answer.status >= 500:
                    self.wrong.append(f"{method} {path}: {answer}")


def command(chance: random.Random, player: Player, api: Api, things: Universe) -> None:
    """Send one command at random, mostly pushes, so that there is something to delete."""
    name, tag = chance.choice(NAMES), chance.choice(TAGS)
    data, manifest = chance.choice(things.blobs), chance.choice(things.manifests)
    match chance.choices(range(8), (8, 3, 2, 2, 2, 1, 2, 2))[0]:
        case 0:
            player.push(api, name, manifest, tag, chance.choice(("none", *CONDITIONS)))
        case 1:
            player.push_by_digest(api, name, manifest, chance.sample(TAGS, chance.randrange(len(TAGS) + 1)))
        case 2:
            player.delete_tag(api, name, tag, chance.choice(CONDITIONS_OF_DELETE))
        case 3:
            player.delete_manifest(api, name, manifest.digest)
        case 4:
            player.upload(api, name, data)
        case 5:
            player.delete_blob(api, name, sha256(data))
        case 6:
            player.mount(api, name, chance.choice(NAMES), data)
        case 7:
            uploads(chance, player, api, name, data)


def uploads(chance: random.Random, player: Player, api: Api, name: str, data: bytes) -> None:
    """Open a session, go on with one, or end one."""
    waiting = [each for each in player.model.sessions if each.is_open]
    if not waiting or chance.random() < 0.3:
        player.start(api, name)
    elif chance.random() < 0.5:
        player.chunk(api, chance.choice(waiting), data)
    elif chance.random() < 0.7:
        player.finish(api, chance.choice(waiting), data)
    else:
        player.cancel(api, chance.choice(waiting))


@dataclass(frozen=True)
class Played:
    """The number of reads, and the faults of their answers."""

    reads: int
    wrong: list[str]


def play(apis: Apis, writers: int, commands: int, seed: int) -> Played:
    """Run all writers at once with `commands` in all; raises the error of a writer."""
    playing = [Writer(number, apis, seed) for number in range(writers)]
    together([partial(each.run, commands // writers) for each in playing])
    return Played(sum(each.reads for each in playing), [wrong for each in playing for wrong in each.wrong])
