#!/bin/sh
# The health check of docker-compose.yml calls this script of the official image: it fails while the broker is away.
exec java -cp '/opt/kafka/libs/*' org.apache.kafka.tools.BrokerApiVersionsCommand "$@" > /dev/null
