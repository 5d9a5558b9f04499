"""The whole registry is compared with a model in memory: after every command every GET answers what the model says.

Two APIs serve one database and one folder of blobs. A command goes to one of them, and the other one is asked. The long
form is `make test-long PART=machine`; pytest's option --hypothesis-seed=N sets the seed.
"""

import itertools
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from projections.all_models import MODELS
from projections.builds import rebuild
from projections.projector import project
from tests.api import Registry, registry_over, sha256
from tests.feed.running import assert_right, thread
from tests.folded import wait_folded
from tests.postgres import Server, drop_database, new_database
from tests.races.clients import Api, InProcess
from tests.races.model import Model
from tests.races.player import CONDITIONS, CONDITIONS_OF_DELETE, Player
from tests.races.questions import Question, questions
from tests.races.universe import NAMES, TAGS, universe
from tests.upkeep import keep_once

SEED = 20261127
# Within so many commands every question is asked again, even if its answer has not changed.
TURNS = 8
PREFIX = "model"
THINGS = universe()
apis = st.integers(0, 1)
names = st.sampled_from(NAMES)
tags = st.sampled_from(TAGS)
blobs = st.sampled_from(THINGS.blobs)
chunks = st.sampled_from([b"1", b"2", b"long" * 10_000])
rests = st.sampled_from([b"", b"1", b"2"])
manifests = st.sampled_from(THINGS.manifests)


def ask(registry: Registry, asked: Iterable[Question]) -> None:
    """Ask an API these questions, and check that each answer is right."""
    api = InProcess(registry)
    for each in asked:
        wrong = each.differs(api.ask(each.method, each.path))
        assert wrong is None, wrong


class Machine(RuleBasedStateMachine):
    """Commands to either API; the model foretells every status and every answer."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(TemporaryDirectory(prefix="tt-model-")))
        self.database = new_database(server)
        self.stack.callback(drop_database, server, self.database)
        self.api_stacks = [ExitStack(), ExitStack()]
        self.apis: list[Any] = [None, None]
        self.projector = ExitStack()
        self.projecting = False
        self.player = Player(Model(PREFIX, NAMES))
        self.told = 0
        self.known: dict[tuple[str, str], Question] = {}
        self.turns = itertools.count()
        for number in (0, 1):
            self.open(number)

    def open(self, number: int) -> None:
        """Make an API process's rooms."""
        made = registry_over(self.database, self.folder)
        self.apis[number] = self.api_stacks[number].enter_context(made)

    def api(self, number: int) -> Api:
        """The API of this number, for a command; afterwards the other one is asked first."""
        self.told = number
        return InProcess(self.apis[number])

    # Blobs

    @rule(number=apis, name=names, data=blobs)
    def upload(self, number: int, name: str, data: bytes) -> None:
        """Upload a whole blob."""
        self.player.upload(self.api(number), name, data)

    @rule(number=apis, name=names, origin=names, data=blobs)
    def mount(self, number: int, name: str, origin: str, data: bytes) -> None:
        """Mount a blob from the other repository, or from the same one."""
        self.player.mount(self.api(number), name, origin, data)

    @rule(number=apis, name=names)
    def start(self, number: int, name: str) -> None:
        """Open a session."""
        self.player.start(self.api(number), name)

    @precondition(lambda self: self.player.model.sessions)
    @rule(number=apis, data=st.data(), piece=chunks, ahead=st.sampled_from([0, 0, 0, 1]))
    def chunk(self, number: int, data: st.DataObject, piece: bytes, ahead: int) -> None:
        """Send a chunk, in its place or not."""
        self.player.chunk(self.api(number), data.draw(st.sampled_from(self.player.model.sessions)), piece, ahead)

    @precondition(lambda self: self.player.model.sessions)
    @rule(number=apis, data=st.data(), rest=rests, right=st.sampled_from([True, True, False]))
    def finish(self, number: int, data: st.DataObject, rest: bytes, right: bool) -> None:
        """Send the closing PUT of a session, which may be closed already."""
        session = data.draw(st.sampled_from(self.player.model.sessions))
        self.player.finish(self.api(number), session, rest, right=right)

    @precondition(lambda self: self.player.model.sessions)
    @rule(number=apis, data=st.data())
    def cancel(self, number: int, data: st.DataObject) -> None:
        """Give up a session, which may be closed already."""
        self.player.cancel(self.api(number), data.draw(st.sampled_from(self.player.model.sessions)))

    @rule(number=apis, name=names, data=blobs)
    def delete_blob(self, number: int, name: str, data: bytes) -> None:
        """Delete a blob, which manifests may name, or which may not be there."""
        self.player.delete_blob(self.api(number), name, sha256(data))

    # Manifests

    @initialize(number=apis, name=names)
    def everything_for_an_image(self, number: int, name: str) -> None:
        """Give a repository all blobs and a tag, so that pushes succeed and tags move from the beginning."""
        for data in THINGS.blobs:
            self.player.upload(self.api(number), name, data)
        self.player.push(self.api(1 - number), name, THINGS.manifests[0], TAGS[0])

    @rule(number=apis, name=names, manifest=manifests, tag=tags, condition=st.sampled_from(CONDITIONS))
    def push(self, number: int, name: str, manifest: Any, tag: str, condition: str) -> None:
        """Push a manifest by tag, maybe on a condition."""
        self.player.push(self.api(number), name, manifest, tag, condition)

    @rule(number=apis, name=names, manifest=manifests, tag=tags)
    def push_plainly(self, number: int, name: str, manifest: Any, tag: str) -> None:
        """Push a manifest by tag without a condition."""
        self.player.push(self.api(number), name, manifest, tag)

    @rule(number=apis, name=names, manifest=manifests, several=st.lists(tags, unique=True))
    def push_by_digest(self, number: int, name: str, manifest: Any, several: list[str]) -> None:
        """Push a manifest by digest, under several tags or none."""
        self.player.push_by_digest(self.api(number), name, manifest, several)

    @rule(
        number=apis,
        name=names,
        tag=tags,
        condition=st.sampled_from(CONDITIONS_OF_DELETE),
    )
    def delete_tag(self, number: int, name: str, tag: str, condition: str) -> None:
        """Delete a tag, maybe on a condition."""
        self.player.delete_tag(self.api(number), name, tag, condition)

    @rule(number=apis, name=names, manifest=manifests)
    def delete_manifest(self, number: int, name: str, manifest: Any) -> None:
        """Delete a manifest with its tags."""
        self.player.delete_manifest(self.api(number), name, manifest.digest)

    # Things that happen to a registry

    @rule(hours=st.sampled_from([5, 13, 25]), number=apis)
    def time_passes(self, hours: int, number: int) -> None:
        """Move the clock of all processes, and let one of them run its upkeep."""
        self.player.model.pass_time(hours)
        (self.folder / "clock").write_text(str(self.player.model.hour * 3600))
        keep_once(self.apis[number].rooms)

    @rule(what=st.sampled_from(["restart", "projector", "rebuild"]), number=apis, model=st.sampled_from(MODELS))
    def processes_come_and_go(self, what: str, number: int, model: Any) -> None:
        """Restart an API, rebuild a read model, or start or end a projector.

        It is one rule for all of these, so that most commands are a client's.
        """
        if what == "restart":
            self.api_stacks[number].close()
            self.open(number)
        elif what == "rebuild":
            assert rebuild.rebuild(self.database.app_url, model, keep_s=0.0).mended.equal
        elif self.projecting:
            self.projector.close()
            self.projecting = False
        else:
            self.projector.enter_context(thread(partial(project, self.database.app_url)))
            self.projecting = True

    @precondition(lambda self: self.projecting)
    @rule()
    def projector_catches_up(self) -> None:
        """Fold everything, so that the next answers come from rows and have no tail."""
        wait_folded(self.database.app_url, self.apis[0].head_position())

    # Things that must be true

    @invariant()
    def every_answer_is_right(self) -> None:
        """Ask both APIs every question whose answer has changed and some others, the API of the command last."""
        now = {(each.method, each.path): each for each in questions(self.player.model)}
        changed = [each for place, each in now.items() if self.known.get(place) != each]
        unchanged = [each for place, each in now.items() if self.known.get(place) == each]
        turn = next(self.turns)
        self.known = now
        for number in (1 - self.told, self.told):
            ask(self.apis[number], [*changed, *unchanged[turn % TURNS :: TURNS]])

    def ask_all(self) -> None:
        """Ask both APIs every question."""
        for each in self.apis:
            ask(each, questions(self.player.model))

    def teardown(self) -> None:
        """Check at the end that both APIs answer right, and that the read models equal a fold from nothing."""
        try:
            self.ask_all()
            self.projector.close()
            self.apis[0].project()
            assert_right(self.database.app_url)
            self.ask_all()
        finally:
            self.projector.close()
            for each in self.api_stacks:
                each.close()
            self.stack.close()


@pytest.mark.parametrize(("examples", "steps"), [(4, 25), pytest.param(80, 80, marks=pytest.mark.slow)])
def test_every_answer_equals_the_model(
    postgres_server: Server, pytestconfig: pytest.Config, examples: int, steps: int
) -> None:
    """Two API processes, a projector that comes and goes, rebuilds, restarts, a moved clock."""
    chosen = int(pytestconfig.getoption("--hypothesis-seed") or SEED)
    print(f"seed {chosen}")

    @seed(chosen)
    class Chosen(Machine):
        def __init__(self) -> None:
            super().__init__(postgres_server)

    run_state_machine_as_test(
        Chosen,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
