"""The relay process. It carries the log to Kafka until told to stop."""

import signal

from eventstore.feed import relay
from eventstore.feed.waking import Stop
from tagtrail import logs
from tagtrail.config import WrongOption, current_settings
from tagtrail.server.processes import end_with_parent, supervisor_pid


def main() -> None:
    """Relay until SIGTERM or SIGINT."""
    settings = current_settings()
    logs.configure(settings, "relay")
    end_with_parent(supervisor_pid())
    kafka = settings.kafka_settings
    if kafka is None:
        raise WrongOption("no Kafka is named, so the relay has nothing to publish to")
    stop = Stop()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    relay.run_until(settings.database_url, kafka, stop)


if __name__ == "__main__":
    main()
