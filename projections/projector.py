"""The projector: the runner folds what is appended, and a thread beside it fills and removes builds."""

from collections.abc import Iterable

from eventstore.feed.settings import KafkaSettings
from eventstore.feed.waking import Stop
from projections.all_models import MODELS
from projections.builds.housekeeping import Housekeeping
from projections.engine import runner
from projections.engine.runner import BATCH_EVENTS
from projections.model import Model


def project(
    database_url: str,
    stop: Stop,
    *,
    models: Iterable[Model] = MODELS,
    kafka: KafkaSettings | None = None,
    batch: int = BATCH_EVENTS,
) -> None:
    """Project until stopped; reconnects by itself while the database is away.

    Raises failures of the machine.
    """
    models = tuple(models)
    house = Housekeeping(database_url, models, stop).start()
    try:
        runner.run(database_url, stop, models, kafka=kafka, batch=batch, connected=house.look_soon)
    finally:
        house.join()
    if house.failure is not None:
        # The supervisor must see that this process failed, and start it again.
        raise house.failure
