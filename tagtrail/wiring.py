"""Makes the rooms of one process from its settings and joins them into one WSGI application."""

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from blobstore.disk import DiskBlobStore
from blobstore.pace import Allowance
from command_api import handlers as command_handlers
from command_api.bodies import BodyLimits
from command_api.context import Context as CommandContext
from command_api.context import Limits
from command_api.gates import WorkGate
from command_api.uploads.seal_keys import SealKeys
from domain.features import HANDLED
from eventstore.board.board import Board
from eventstore.connection import BoundedConnection
from eventstore.feed.members import STATEMENT_TIMEOUT_S, Member, Membership
from eventstore.store import Store
from eventstore.types import StoreError
from eventstore.validating import Validator
from projections.all_models import MODELS
from projections.reader import Reader
from protocol.gates import AddressGate
from query_api import api_v1
from query_api import handlers as query_handlers
from query_api.cache import AnswerCache
from query_api.context import Context as QueryContext
from tagtrail.clock import make_clock
from tagtrail.config import Settings
from tagtrail.cross_origin import CrossOrigin
from tagtrail.downloads import Downloads
from tagtrail.draining import Drain
from tagtrail.flask_app import create_app
from tagtrail.health import Health
from tagtrail.hosts import hosts_of
from tagtrail.metrics import Metrics
from tagtrail.proxies import TrustedProxies
from tagtrail.server.lingering import Lingering
from tagtrail.shell import Application
from tagtrail.storing import make_store, open_board

API_BEAT_S = 5.0
OPEN_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms of one API process; `close` ends them."""

    settings: Settings
    store: Store
    reader: Reader
    commands: CommandContext
    questions: QueryContext
    board: Board | None
    proxies: TrustedProxies
    downloads: Downloads

    def close(self) -> None:
        """Finish appends and close all connections."""
        self.store.close()
        if self.board is not None:
            self.board.close()


def make_rooms(
    settings: Settings, *, tail: bool = True, board_path: Path | None = None, appender: Path | None = None
) -> Rooms:
    """Join the rooms.

    `tail=False` is the tests' hook (see Reader); `board_path` is the server's change board, `appender` the socket of
    its appender.
    """
    board = open_board(board_path)
    store = make_store(settings, board, appender)
    reader = Reader(store.reader, tail=tail)
    allowance = Allowance()
    blobs = DiskBlobStore(settings.data, allowance=allowance)
    proxies = TrustedProxies(settings.trusted_proxy)
    commands = CommandContext(
        store=store,
        blobs=blobs,
        clock=make_clock(settings),
        limits=Limits(
            manifest_bytes_max=settings.manifest_bytes_max,
            chunk_bytes_min=settings.chunk_bytes_min,
            upload_expiry=timedelta(seconds=settings.upload_expiry_s),
        ),
        body_limits=BodyLimits(settings.upload_rate_min_bytes, settings.upload_grace_s),
        body_gate=AddressGate(
            per_address_max=settings.upload_bodies_per_address,
            total_max=settings.upload_bodies_total,
            exempt=proxies.trusts,
        ),
        work_gate=WorkGate(),
        seal_keys=SealKeys(store.seal_keys),
    )
    # Without the tail answers may be outdated, so none is kept.
    cache = AnswerCache((board or Validator(store.marks)) if tail else None, settings.cache_bytes)
    questions = QueryContext(reader=reader, store=store, blobs=blobs, cache=cache, list_page_max=settings.list_page_max)
    gate = AddressGate(
        per_address_max=settings.downloads_per_address, total_max=settings.downloads_total, exempt=proxies.trusts
    )
    downloads = Downloads(gate, allowance)
    return Rooms(settings, store, reader, commands, questions, board, proxies, downloads)


def make_wsgi(rooms: Rooms, refusal: Callable[[], str | None] = lambda: None) -> Application:
    """The application of one API process; `refusal` tells why it must not serve at the moment, or None."""
    direct = {**query_handlers.pull_handlers(rooms.questions), **command_handlers.push_handlers(rooms.commands)}
    others = {**query_handlers.list_handlers(rooms.questions), **command_handlers.handlers(rooms.commands)}
    flask_app = create_app(others, [api_v1.blueprint(rooms.questions)])
    health = Health(rooms.store, rooms.commands.blobs, refusal)
    checks = {
        "/healthz": health.alive,
        "/readyz": health.ready,
        "/metrics": Metrics(rooms.settings).answer,
    }
    # As many rests as bodies: a client that may send no more bodies is answered before its body was read.
    gate = AddressGate(
        per_address_max=rooms.settings.upload_bodies_per_address,
        total_max=rooms.settings.upload_bodies_total,
        exempt=rooms.proxies.trusts,
    )
    return Application(
        rooms.questions.cache,
        query_handlers.ALWAYS,
        direct,
        {**direct, **others},
        flask_app,
        checks,
        drain=Drain(rooms.commands.body_limits, gate, _linger(rooms.settings)),
        hosts=hosts_of(rooms.settings),
        cross_origin=CrossOrigin(frozenset(rooms.settings.cors_origins)),
        public_url=rooms.settings.public_url,
        proxies=rooms.proxies,
        downloads=rooms.downloads,
        refusal=refusal,
        access_log=rooms.settings.access_log,
    )


def _linger(settings: Settings) -> Callable[[str], None]:
    """The holder of connections that are about to be closed. Only Linux tells their states."""
    return Lingering(settings.port).hold if sys.platform == "linux" else lambda _: None


def register(rooms: Rooms) -> Membership:
    """Register this process with its read models and features; it must not serve before."""
    member = Member("api", frozenset(each.id for each in MODELS), HANDLED["api"])

    def lent() -> AbstractContextManager[BoundedConnection]:
        return rooms.store.reader().lent(STATEMENT_TIMEOUT_S)

    return Membership(rooms.settings.database_url, member, beat_s=API_BEAT_S, lent=lent).start()


def start_beside(rooms: Rooms) -> threading.Event:
    """Start the work that goes on beside the requests; set the event to end it."""
    stop = threading.Event()
    if rooms.board is not None:
        threading.Thread(target=_open_store, args=(rooms.store, stop), name="open-store", daemon=True).start()
    return stop


def _open_store(store: Store, stop: threading.Event) -> None:
    """Open the store before it is needed.

    Where the worker appends by itself, that settles the cells that a dead one left open on the board. Elsewhere it is
    the appender's claim that settles them.
    """
    while not stop.is_set():
        try:
            store.head()
        except StoreError:
            stop.wait(OPEN_PAUSE_S)
        else:
            return
