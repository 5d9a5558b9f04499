"""The table of options: name, reader of values, default, help. `config` and the command line are made from it."""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Value = Any


class InvalidValue(ValueError):
    """A value that is wrong for its option; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `read` takes a string (flag, variable) or a TOML value and raises InvalidValue.

    `default` gets the options resolved so far. Without `flag` the option is set by variable and file only. With `many`
    it takes several values: separated by commas, as a list in the file, or by repeated flags.
    """

    name: str
    read: Callable[[object], Value]
    default: Callable[[Mapping[str, Value]], Value]
    help: str
    metavar: str
    switch: bool = False
    flag: bool = True
    in_file: bool = True
    many: bool = False

    @property
    def flag_name(self) -> str:
        """The option as typed on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "TAGTRAIL_" + self.name.upper()


def read_listen(given: object) -> str:
    """HOST:PORT with an IP address or `localhost`; answers the canonical form."""
    text = str(given)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidValue("must be HOST:PORT, for example 127.0.0.1:5000 or [::1]:5000")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if bare == "localhost":
        bare = "127.0.0.1"
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        raise InvalidValue("the host must be an IP address or localhost, for example 127.0.0.1:5000") from None
    return f"[{address}]:{int(port)}" if address.version == 6 else f"{address}:{int(port)}"


def read_folder(given: object) -> Path:
    """A folder, made absolute; it need not exist."""
    if not isinstance(given, (str, Path)) or not str(given) or "\0" in str(given):
        raise InvalidValue("must be the path of a folder")
    return Path(os.path.abspath(os.path.expanduser(given)))


def read_database(given: object) -> str | None:
    """A Postgres URL; empty means the embedded database."""
    text = str(given)
    if not text:
        return None
    # Neither the value nor the parser's message may be repeated: both can hold the password.
    if not re.fullmatch(r"postgres(ql)?://\S+", text):
        raise InvalidValue("must be a URL such as postgresql://USER:PASSWORD@HOST:5432/DATABASE")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise InvalidValue("is no valid URL: write special characters of the password as %XX") from None
    if not parts.path.strip("/") and "dbname=" not in parts.query:
        raise InvalidValue("names no database: postgresql://USER:PASSWORD@HOST:5432/DATABASE")
    return text


def read_kafka(given: object) -> str | None:
    """HOST:PORT,HOST:PORT; empty means none."""
    text = str(given)
    if not text:
        return None
    for each in text.split(","):
        host, colon, port = each.strip().rpartition(":")
        if not host or not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise InvalidValue("must be HOST:PORT,HOST:PORT, for example kafka1:9092,kafka2:9092")
    return ",".join(each.strip() for each in text.split(","))


def read_networks(given: object) -> tuple[str, ...]:
    """Addresses and networks in their canonical form; empty means none."""
    found = []
    for each in _several(given):
        try:
            found.append(str(ipaddress.ip_network(each)))
        except ValueError:
            raise InvalidValue(
                "must be addresses or networks, for example 10.0.0.7,192.168.0.0/16, with no bits behind the prefix"
            ) from None
    return tuple(found)


def _several(given: object) -> list[str]:
    texts = [str(each) for each in given] if isinstance(given, (list, tuple)) else [str(given)]
    return [each.strip() for text in texts for each in text.split(",") if each.strip()]


def read_file(given: object) -> Path | None:
    """A file that must be there; empty means none."""
    if not str(given):
        return None
    path = Path(os.path.abspath(os.path.expanduser(str(given))))
    if not path.is_file():
        raise InvalidValue("must be the path of a file that is there")
    return path


def read_hosts(given: object) -> tuple[str, ...]:
    """Names and addresses without ports, in lower case; empty means none."""
    names = tuple(each.lower().strip("[]").removesuffix(".") for each in _several(given))
    for each in names:
        if not re.fullmatch(r"[a-z0-9._-]{1,255}|[0-9a-f:.]+", each) or (":" in each and not _is_address(each)):
            raise InvalidValue("must be names or addresses without a port, for example registry.test,192.0.2.7")
    return names


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def read_origins(given: object) -> tuple[str, ...]:
    """Origins of pages, or `*`; empty means none."""
    origins = tuple(each.lower() for each in _several(given))
    for each in origins:
        if each != "*" and not _is_root(each):
            raise InvalidValue("must be origins such as https://ui.example.com or http://localhost:3000, or *")
    return origins


def read_public_url(given: object) -> str | None:
    """The URL by which clients know the server, without a slash at its end; empty means none."""
    text = str(given)
    if not text:
        return None
    url = text.lower().removesuffix("/")
    if not _is_root(url):
        raise InvalidValue("must be a URL without a path, for example https://registry.example.com")
    return url


def _is_root(url: str) -> bool:
    """True for a scheme, a host and perhaps a port from 1 to 65535, with nothing behind them."""
    if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", url):
        return False
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def read_text(given: object) -> str | None:
    """Some text; empty means none."""
    return str(given) or None


def read_topic_prefix(given: object) -> str:
    """A prefix of topic names."""
    text = str(given)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", text):
        raise InvalidValue("must be letters, digits, '.', '_' and '-'")
    return text


def whole(least: int, most: int) -> Callable[[object], int]:
    """A reader of whole numbers within limits."""

    def read(given: object) -> int:
        text = str(given)
        if isinstance(given, bool) or not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise InvalidValue(f"must be a whole number from {least} to {most}")
        return int(text)

    return read


_BYTE_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def size(least: int, most: int) -> Callable[[object], int]:
    """A reader of numbers of bytes, also with KiB, MiB, GiB."""

    def read(given: object) -> int:
        found = re.fullmatch(r"([0-9]{1,18}) ?([A-Za-z]*)", str(given))
        unit = _BYTE_UNITS.get(found[2].lower()) if found else None
        if isinstance(given, bool) or found is None or unit is None or not least <= int(found[1]) * unit <= most:
            raise InvalidValue(f"must be a number of bytes from {least} to {most}; 64KiB and 10MiB are understood")
        return int(found[1]) * unit

    return read


_TIME_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(least: float, most: float) -> Callable[[object], float]:
    """A reader of seconds, also with s, m, h, d."""

    def read(given: object) -> float:
        found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([smhd]?)", str(given).lower())
        if isinstance(given, bool) or found is None or not least <= float(found[1]) * _TIME_UNITS[found[2]] <= most:
            raise InvalidValue(
                f"must be a time from {least:g} to {most:g} seconds; 30s, 10m, 24h and 2d are understood"
            )
        return float(found[1]) * _TIME_UNITS[found[2]]

    return read


def choice(*known: str) -> Callable[[object], str]:
    """A reader of one of some words."""

    def read(given: object) -> str:
        text = str(given).lower()
        if text not in known:
            raise InvalidValue(f"must be one of {', '.join(known)}")
        return text

    return read


_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def read_switch(given: object) -> bool:
    """True or false, in the usual words."""
    found = _TRUTH.get(str(given).lower())
    if found is None:
        raise InvalidValue("must be true or false")
    return found


def read_test_clock(given: object) -> Path | None:
    """The file that holds the tests' offset; empty means none."""
    return Path(os.path.abspath(str(given))) if str(given) else None


def _is(value: Value) -> Callable[[Mapping[str, Value]], Value]:
    return lambda _: value


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_GIB = 1 << 30
_DAY = 86400

OPTIONS: tuple[Option, ...] = (
    Option("listen", read_listen, _is("127.0.0.1:5000"), "Address to serve on; port 0 takes a free port.", "HOST:PORT"),
    Option("data", read_folder, lambda _: read_folder("./data"), "Folder of the blobs and the database.", "DIR"),
    Option(
        "database",
        read_database,
        _is(None),
        "Postgres to use, as the application's role (see `tagtrail db init`); without it one is run inside --data.",
        "URL",
    ),
    Option("workers", whole(1, 256), lambda _: max(2, _processors()), "API processes.", "N"),
    Option(
        "threads",
        whole(4, 4096),
        _is(256),
        "Requests that one worker serves at a time, besides downloads.",
        "N",
    ),
    Option(
        "connections", whole(1, 65536), _is(8192), "Connections that one worker holds at a time, idle ones too.", "N"
    ),
    Option(
        "idle_timeout_s",
        duration(1, 3600),
        _is(75.0),
        "A connection that sends no whole head of a request for this long is closed.",
        "TIME",
    ),
    Option(
        "insecure_open",
        read_switch,
        _is(False),
        "Serve on an address that others can reach, although nobody has to log in.",
        "",
        switch=True,
    ),
    Option(
        "public_url",
        read_public_url,
        _is(None),
        "The URL by which clients know the server; the addresses in `Location` then begin with it.",
        "URL",
    ),
    Option(
        "allow_host",
        read_hosts,
        _is(()),
        "More names to which a server on loopback answers, besides localhost and the host of --public-url.",
        "HOST",
        many=True,
    ),
    Option(
        "cors_origins",
        read_origins,
        _is(()),
        "Origins whose pages may call the registry from a browser; * for all.",
        "ORIGIN",
        many=True,
    ),
    Option("log_format", choice("text", "json"), _is("text"), "text or json.", "FORMAT"),
    Option("log_level", choice("debug", "info", "warning", "error"), _is("info"), "Least level to log.", "LEVEL"),
    Option("access_log", read_switch, _is(False), "One line for each request.", "", switch=True),
    Option("manifest_bytes_max", size(1 << 10, 64 << 20), _is(10 << 20), "Largest manifest.", "BYTES"),
    Option(
        "upload_expiry_s", duration(1, 365 * _DAY), _is(float(_DAY)), "An upload idle for this long is dropped.", "TIME"
    ),
    Option(
        "upload_log_days",
        whole(0, 36_500),
        _is(7),
        "Days after which events of upload sessions are dropped; 0 keeps them for ever.",
        "N",
    ),
    Option(
        "client_address_days",
        whole(1, 36_500),
        _is(90),
        "Days after which addresses and user agents of clients are erased from the history.",
        "N",
    ),
    Option(
        "upload_bodies_per_address", whole(1, 100_000), _is(128), "Bodies that one client may be sending at once.", "N"
    ),
    Option(
        "upload_bodies_total",
        whole(1, 100_000),
        lambda resolved: max(1, int(resolved["threads"]) * 3 // 4),
        "Bodies that one worker receives at once; by default three quarters of its threads.",
        "N",
    ),
    Option(
        "upload_rate_min_bytes", size(0, _GIB), _is(1024), "Bytes a second below which an upload is cut off.", "BYTES"
    ),
    Option(
        "upload_grace_s",
        duration(0.1, 3600),
        _is(10.0),
        "Time that an upload may fall behind that rate before it is cut off.",
        "TIME",
    ),
    Option(
        "upload_stall_s",
        duration(1, 86400),
        _is(60.0),
        "Time that a client may send nothing of a body before its connection is cut off.",
        "TIME",
    ),
    Option("downloads_per_address", whole(1, 100_000), _is(4096), "Downloads that one client may have at once.", "N"),
    Option("downloads_total", whole(1, 65536), _is(4096), "Downloads that one worker serves at once.", "N"),
    Option(
        "download_rate_min_bytes",
        size(0, _GIB),
        _is(1024),
        "Bytes a second below which a client that reads is cut off.",
        "BYTES",
    ),
    Option(
        "download_stall_s",
        duration(1, 86400),
        _is(300.0),
        "Time that a client may read nothing, or less than that rate, before it is cut off.",
        "TIME",
    ),
    Option(
        "trusted_proxy",
        read_networks,
        _is(()),
        "Proxies whose X-Forwarded-For is believed: addresses or networks, separated by commas or repeated.",
        "ADDRESS",
        many=True,
    ),
    Option(
        "chunk_bytes_min",
        size(0, _GIB),
        _is(0),
        "Least size of a chunk, announced to clients as OCI-Chunk-Min-Length; 0 announces none.",
        "BYTES",
    ),
    Option("list_page_max", whole(1, 100_000), _is(10_000), "Most entries in one page of a list.", "N"),
    Option("append_timeout_s", duration(0.1, 600), _is(10.0), "Longest wait for an append to the log.", "TIME"),
    Option("read_timeout_s", duration(0.1, 600), _is(10.0), "Longest wait for a read from the database.", "TIME"),
    Option(
        "database_pool",
        whole(1, 256),
        # Some for each worker, and not many more in all on a machine of many processors.
        lambda resolved: max(2, min(8, 32 // int(resolved["workers"]))),
        "Database connections by which one worker asks; by default 2 to 8, the fewer the more workers there are.",
        "N",
    ),
    Option(
        "appender",
        read_switch,
        # With few workers, sharing flushes saves less than the way through another process costs.
        lambda resolved: int(resolved["workers"]) >= 4,
        "Append by one process for all workers; without it each appends by itself. On from four workers.",
        "",
        switch=True,
    ),
    Option(
        "single_node",
        read_switch,
        _is(False),
        "This server alone appends to --database, so kept answers need no question to it.",
        "",
        switch=True,
    ),
    Option(
        "cache_bytes",
        size(0, 64 * _GIB),
        _is(64 << 20),
        "Memory for the answers that one worker keeps; 0 keeps none.",
        "BYTES",
    ),
    Option(
        "projector",
        read_switch,
        _is(True),
        "Run the process that keeps the read models up to date; answers are right without it, but slower.",
        "",
        switch=True,
    ),
    Option("kafka", read_kafka, _is(None), "Brokers that feed the read models; else the log does.", "HOST:PORT,…"),
    Option(
        "kafka_security_protocol",
        choice("plaintext", "ssl", "sasl_plaintext", "sasl_ssl"),
        _is("plaintext"),
        "Protocol to reach Kafka: plaintext, ssl, sasl_plaintext or sasl_ssl.",
        "NAME",
    ),
    Option("kafka_ca_file", read_file, _is(None), "Authorities that may sign Kafka's certificate (PEM).", "FILE"),
    Option("kafka_cert_file", read_file, _is(None), "Certificate to show to Kafka (PEM).", "FILE"),
    Option("kafka_key_file", read_file, _is(None), "Key of that certificate (PEM).", "FILE"),
    Option(
        "kafka_sasl_mechanism",
        choice("plain", "scram-sha-256", "scram-sha-512"),
        _is("plain"),
        "How to log in with sasl_plaintext and sasl_ssl: plain, scram-sha-256 or scram-sha-512.",
        "NAME",
    ),
    Option("kafka_username", read_text, _is(None), "User to log in as.", "NAME"),
    Option("kafka_password", read_text, _is(None), "The password of that user.", "TEXT", flag=False),
    Option("kafka_topic_prefix", read_topic_prefix, _is("tagtrail"), "First part of topic names.", "TEXT"),
    Option("kafka_replication", whole(0, 99), _is(0), "Copies of new topics; 0 is the broker's default.", "N"),
    Option(
        "test_clock",
        read_test_clock,
        _is(None),
        "For tests: a file that holds an offset in seconds, added to the clock.",
        "FILE",
        flag=False,
        in_file=False,
    ),
)

BY_NAME: dict[str, Option] = {option.name: option for option in OPTIONS}
