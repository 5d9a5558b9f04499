"""The memory of the change board: when an answer may be kept, and when it may be used."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from eventstore.board.cells import CELLS, Cells, Ticket, cell_of, make_memory, now_ns

LONG_NS = 3600 * 1_000_000_000
PLACES = 3


@pytest.fixture
def cells() -> Iterator[Cells]:
    """A board with a lease that lasts."""
    descriptor = make_memory(PLACES)
    made = Cells(descriptor)
    os.close(descriptor)
    made.next_term()
    made.lend_until(now_ns() + LONG_NS)
    yield made
    made.close()


def kept(cells: Cells, cell: int) -> Ticket:
    """A ticket that must be given."""
    ticket = cells.ticket(cell)
    assert ticket is not None
    return ticket


def test_an_answer_is_kept_until_something_begins(cells: Cells) -> None:
    """An append of that cell at any place ends it; the end of the append does not make the old answer good again."""
    ticket = kept(cells, 7)
    cells.begin(1, [8])
    assert cells.holds(7, ticket)
    cells.begin(2, [7])
    assert not cells.holds(7, ticket)
    assert cells.ticket(7) is None
    cells.end(2, [7])
    assert not cells.holds(7, ticket)
    assert cells.holds(7, kept(cells, 7))


def test_the_ends_of_one_place_do_not_stand_in_for_those_of_another(cells: Cells) -> None:
    """Two have begun, one has ended: nothing is kept."""
    cells.begin(0, [5])
    cells.begin(1, [5])
    cells.end(0, [5])
    assert cells.ticket(5) is None


@pytest.mark.parametrize("cell", [0, 255, 256, 40_000, CELLS - 1])
def test_settling_ends_what_a_place_left_open(cells: Cells, cell: int) -> None:
    """Appends of that place alone count."""
    cells.begin(1, [cell])
    cells.begin(1, [cell])
    cells.settle(0)
    assert cells.ticket(cell) is None
    cells.settle(1)
    assert cells.holds(cell, kept(cells, cell))


def test_without_a_lease_nothing_is_kept_or_used(cells: Cells) -> None:
    """Answers that were kept before are not used either."""
    ticket = kept(cells, 1)
    cells.lend_until(now_ns())
    assert not cells.holds(1, ticket)
    assert cells.ticket(1) is None
    cells.lend_until(now_ns() + LONG_NS)
    assert cells.holds(1, ticket)


def test_a_new_term_forgets_everything_and_has_another_name(cells: Cells) -> None:
    """Others may have appended in between."""
    ticket, name = kept(cells, 1), cells.name
    cells.next_term()
    assert not cells.holds(1, ticket)
    assert cells.name != name


def test_what_is_no_board_is_refused() -> None:
    """Other memory of the right size is refused."""
    descriptor = os.memfd_create("other")
    os.ftruncate(descriptor, 1 << 20)
    try:
        with pytest.raises(ValueError, match="not the memory of a board"):
            Cells(descriptor)
    finally:
        os.close(descriptor)


def test_every_key_has_a_cell() -> None:
    """Even a key that is no valid text has one."""
    assert {cell_of(each) < CELLS for each in ("a", "a/b", "", "\udcff", "ü")} == {True}


class KeptAnswers(RuleBasedStateMachine):
    """Writers and readers of one cell, each stopped between any two steps: no answer that is used is stale.

    The database is a number; an append makes it one larger, at its own moment between begin and end. A killed
    writer's append may still happen until its place is claimed anew.
    """

    asked = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        descriptor = make_memory(PLACES)
        self.cells = Cells(descriptor)
        os.close(descriptor)
        self.cells.next_term()
        self.cells.lend_until(now_ns() + LONG_NS)
        self.value = 0
        self.acknowledged = 0
        self.state = ["idle"] * PLACES
        self.answers: list[tuple[Ticket, int]] = []

    @rule(place=st.integers(0, PLACES - 1))
    def go_on(self, place: int) -> None:
        """The next step of a writer."""
        match self.state[place]:
            case "idle":
                self.cells.begin(place, [9])
                self.state[place] = "sent"
            case "sent":
                self.value += 1
                self.state[place] = "committed"
            case "committed":
                self.cells.end(place, [9])
                self.acknowledged = max(self.acknowledged, self.value)
                self.state[place] = "idle"
            case _:
                pass

    @rule(place=st.integers(0, PLACES - 1))
    def kill(self, place: int) -> None:
        """Its append may be waiting in the database, or have been done."""
        if self.state[place] in ("sent", "committed"):
            self.state[place] = "waiting" if self.state[place] == "sent" else "gone"

    @rule(place=st.integers(0, PLACES - 1))
    def late_commit(self, place: int) -> None:
        """An append that a killed writer had sent is done after all; a client may learn of it by asking."""
        if self.state[place] == "waiting":
            self.value += 1
            self.acknowledged = self.value
            self.state[place] = "gone"

    @rule(place=st.integers(0, PLACES - 1))
    def claim(self, place: int) -> None:
        """A new process takes the place: nothing of the old one is done from here on."""
        if self.state[place] in ("waiting", "gone"):
            self.cells.settle(place)
            self.state[place] = "idle"

    @rule(target=asked)
    def ask(self) -> tuple[Ticket | None, int]:
        """A reader takes its ticket, then asks the database: what it gets may be kept much later."""
        ticket = self.cells.ticket(9)
        return ticket, self.value

    @rule(target=asked)
    def take_a_ticket_long_before(self) -> tuple[Ticket | None, int]:
        """The value is that of a later moment than the ticket's: kept with an older ticket, never with a newer."""
        ticket = self.cells.ticket(9)
        for place in range(PLACES):
            self.go_on(place)
        return ticket, self.value

    @rule(answer=asked)
    def keep(self, answer: tuple[Ticket | None, int]) -> None:
        """Keep it, if it may be kept."""
        ticket, value = answer
        if ticket is not None:
            self.answers.append((ticket, value))

    @invariant()
    def no_stale_answer_is_used(self) -> None:
        """Every answer that is used holds all that was acknowledged."""
        for ticket, value in self.answers:
            if self.cells.holds(9, ticket):
                assert value >= self.acknowledged

    def teardown(self) -> None:
        """Give the memory back."""
        self.cells.close()


TestKeptAnswers = KeptAnswers.TestCase
TestKeptAnswers.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
