"""`tagtrail relay`, `tagtrail projector` and `tagtrail keeper`: single processes of a server, on any machine."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from eventstore.feed.waking import Stop
from projections.all_models import MODELS, UnknownModel, models_named
from projections.model import Model
from tagtrail import logs, metrics
from tagtrail.cli.common import Problem, resolved, setting_options
from tagtrail.cli.preparing import checked, shared
from tagtrail.config import Settings
from tagtrail.options import InvalidValue, read_listen

_COMMON = ("database", "log_format", "log_level")
_KAFKA = (
    "kafka",
    "kafka_security_protocol",
    "kafka_ca_file",
    "kafka_cert_file",
    "kafka_key_file",
    "kafka_sasl_mechanism",
    "kafka_username",
    "kafka_topic_prefix",
    "kafka_replication",
)


def _address(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    try:
        return None if given is None else read_listen(given)
    except InvalidValue as problem:
        raise click.BadParameter(str(problem)) from problem


metrics_option = click.option(
    "--metrics", "metrics_listen", metavar="HOST:PORT", callback=_address, help="Serve /metrics there."
)


@click.command()
@metrics_option
@setting_options(*_COMMON, *_KAFKA)
def relay(metrics_listen: str | None, config_file: str | None, **values: Any) -> None:
    """Carry the log from the database to Kafka until Ctrl-C.

    Any number may run: one works, and another one takes over when it ends.
    """
    from eventstore.feed import relay as work

    settings = checked(resolved({**values, "insecure_open": True}, config_file).settings, "relay")
    if settings.kafka_settings is None:
        raise click.UsageError("name the brokers: --kafka HOST:PORT or TAGTRAIL_KAFKA")
    with _running(settings, "relay", metrics_listen) as stop:
        work.run_until(settings.database_url, settings.kafka_settings, stop)


@click.command()
@click.option("--only", metavar="NAME,NAME", help="Only these read models; otherwise all.")
@metrics_option
@setting_options(*_COMMON, *_KAFKA)
def projector(only: str | None, metrics_listen: str | None, config_file: str | None, **values: Any) -> None:
    """Keep read models up with the log until Ctrl-C. Events come from Kafka if it is named, else from the database.

    Any number may run: with Kafka they share the partitions.
    """
    from projections.projector import project

    settings = checked(resolved({**values, "insecure_open": True}, config_file).settings, "projector")
    models = _models(only)
    with _running(settings, "projector", metrics_listen) as stop:
        project(settings.database_url, stop, models=models, kafka=settings.kafka_settings)


@click.command()
@metrics_option
@setting_options(
    *_COMMON, "data", "upload_expiry_s", "upload_log_days", "client_address_days", "append_timeout_s", "read_timeout_s"
)
def keeper(metrics_listen: str | None, config_file: str | None, **values: Any) -> None:
    """Do the upkeep of the log and the data folder until Ctrl-C.

    Any number may run: one works, the others take over when it ends. `tagtrail serve` has one.
    """
    from tagtrail.keeping import keep

    settings = checked(resolved({**values, "insecure_open": True}, config_file).settings, "keeper")
    with shared(settings.data), _running(settings, "keeper", metrics_listen) as stop:
        keep(settings, stop)


def _models(only: str | None) -> tuple[Model, ...]:
    try:
        chosen = {name: models_named(name) for name in (only or "all").split(",")}
    except UnknownModel as problem:
        raise click.UsageError(f"--only: {problem}") from problem
    return tuple(each for each in MODELS if any(each in found for found in chosen.values()))


@contextmanager
def _running(settings: Settings, name: str, metrics_listen: str | None) -> Iterator[Stop]:
    """Set up logs and metrics, and give the event that SIGTERM and Ctrl-C set."""
    logs.configure(settings, name)
    stop = Stop()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    if metrics_listen is None:
        yield stop
        return
    from prometheus_client import start_http_server

    host, _, port = metrics_listen.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry=metrics.registry_of(settings))
    except OSError as problem:
        raise Problem(f"cannot serve metrics on {metrics_listen}: {problem.strerror}") from problem
    logs.get_logger().info("metrics", listen=f"{host}:{server.server_port}")
    try:
        yield stop
    finally:
        server.shutdown()
        thread.join()
