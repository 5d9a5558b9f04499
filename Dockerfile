# Two stages: the first installs the locked dependencies and the project into a virtual environment, the second carries
# only that environment and an unprivileged user. With a folder `wheelhouse/` in the context nothing is downloaded:
#   pip download --require-hashes -r requirements.lock -d wheelhouse && pip download 'setuptools>=77' -d wheelhouse
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
# The pattern makes the folder optional; its wheels land beside the lock file.
COPY requirements.lock wheelhous[e]/*.whl ./wheelhouse/
RUN python3 -m venv /opt/tagtrail
RUN if ls wheelhouse/*.whl >/dev/null 2>&1; then \
        printf '[global]\nno-index = true\nfind-links = /src/wheelhouse\n' > /etc/pip.conf; \
    fi \
    && /opt/tagtrail/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        -r wheelhouse/requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY tagtrail ./tagtrail
COPY command_api ./command_api
COPY query_api ./query_api
COPY projections ./projections
COPY protocol ./protocol
COPY eventstore ./eventstore
COPY blobstore ./blobstore
COPY domain ./domain
RUN /opt/tagtrail/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . \
    && /opt/tagtrail/bin/pip uninstall --yes --quiet pip

FROM ${BASE}
RUN useradd --system --uid 10001 --home-dir /var/lib/tagtrail --create-home --shell /usr/sbin/nologin tagtrail \
    && chmod 0700 /var/lib/tagtrail
COPY --from=build /opt/tagtrail /opt/tagtrail
ENV PATH=/opt/tagtrail/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TAGTRAIL_DATA=/var/lib/tagtrail \
    TAGTRAIL_LISTEN=0.0.0.0:5000
USER tagtrail
WORKDIR /var/lib/tagtrail
VOLUME /var/lib/tagtrail
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request; port = os.environ['TAGTRAIL_LISTEN'].rpartition(':')[2]; urllib.request.urlopen(f'http://127.0.0.1:{port}/healthz', timeout=4)"]
ENTRYPOINT ["tagtrail"]
CMD ["serve"]
