# A local stand-in for apache/kafka:4.3.0, for machines that can reach no image registry. It is made of Maven's
# artefacts and takes the variables, folders and scripts of the official image that docker-compose.yml uses.
FROM tagtrail-standin:base
COPY libs /opt/kafka/libs
COPY kafka-entrypoint.sh /usr/local/bin/kafka-entrypoint.sh
COPY kafka-broker-api-versions.sh /opt/kafka/bin/kafka-broker-api-versions.sh
RUN useradd --system --uid 1000 appuser && mkdir -p /var/lib/kafka/data && chown appuser /var/lib/kafka/data
USER appuser
VOLUME /var/lib/kafka/data
ENTRYPOINT ["kafka-entrypoint.sh"]
