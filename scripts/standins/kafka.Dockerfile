# A local stand-in under the name apache/kafka:4.3.0, with the official image's manners (variables, folders, scripts),
# made of Maven's artefacts; for machines that can reach no image registry.
FROM tagtrail-standin:base
COPY libs /opt/kafka/libs
COPY kafka-entrypoint.sh /usr/local/bin/kafka-entrypoint.sh
COPY kafka-broker-api-versions.sh /opt/kafka/bin/kafka-broker-api-versions.sh
RUN useradd --system --uid 1000 appuser && mkdir -p /var/lib/kafka/data && chown appuser /var/lib/kafka/data
USER appuser
VOLUME /var/lib/kafka/data
ENTRYPOINT ["kafka-entrypoint.sh"]
