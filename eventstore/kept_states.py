"""States of streams that are known without a question, as long as the change board vouches for them.

Only streams that are keys of their own on the board can be known in this way (`Board.watches`).
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from eventstore.board.board import Board
from eventstore.board.cells import Ticket
from eventstore.types import StreamState

# Some 3 MiB of a process.
STATES_MAX = 4096
# A question about more streams than these keeps nothing: it would drive out what others ask for.
ASKED_MAX = 100

Ask = Callable[[Sequence[str]], dict[str, StreamState]]


class KeptStates:
    """The states that one process was told; any number of threads may ask for them."""

    def __init__(self, board: Board, ask: Ask, states_max: int = STATES_MAX) -> None:
        self._board = board
        self._ask = ask
        self._states_max = states_max
        self._kept: dict[str, tuple[Ticket, StreamState]] = {}
        self._changing = threading.Lock()

    def states(self, streams: Sequence[str]) -> dict[str, StreamState]:
        """The state of each of the streams, all at one moment but for one exception.

        If one of them is not known, all are asked for. If all are known, each stood as it is when the first was
        looked at: a ticket that holds later has held all the time since it was given. The one exception is a state that
        another thread brings meanwhile, which may be newer. That does no harm: a caller judges each stream by itself,
        and the append looks at all of them again under its lock.
        """
        found = {}
        for stream in streams:
            kept = self._kept.get(stream)
            if kept is None or not self._board.holds(stream, kept[0]):
                return self._asked(streams)
            found[stream] = kept[1]
        return found

    def _asked(self, streams: Sequence[str]) -> dict[str, StreamState]:
        if len(streams) > ASKED_MAX:
            return self._ask(streams)
        # Taken before the database is asked (rule: begun before done).
        tickets = {each: self._board.ticket(each) for each in streams if self._board.watches(each)}
        found = self._ask(streams)
        self._keep(tickets, found.values())
        return found

    def _keep(self, tickets: Mapping[str, Ticket | None], found: Iterable[StreamState]) -> None:
        with self._changing:
            for each in found:
                ticket = tickets.get(each.stream)
                if ticket is not None:
                    # Taken out first, so that the oldest comes first.
                    self._kept.pop(each.stream, None)
                    self._kept[each.stream] = ticket, each
            while len(self._kept) > self._states_max:
                del self._kept[next(iter(self._kept))]
