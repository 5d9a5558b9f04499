"""Settings of one server: resolved from flags, variables and a TOML file, handed to child processes as JSON.

A flag beats its variable, which beats the file, which beats the default. A wrong value raises WrongOption, whose
message names the option, where it was set and what would be right. It never repeats a value of `database`.
"""

import difflib
import ipaddress
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from eventstore.feed.settings import KafkaSettings
from tagtrail.options import BY_NAME, OPTIONS, InvalidValue, Option

CONFIG_VARIABLE = "TAGTRAIL_CONFIG"
DEFAULT_FILE = "tagtrail.toml"
HANDED_VARIABLE = "TAGTRAIL_SETTINGS_FILE"
# Variables that are not options: those of tests, of single commands and of docker-compose.yml.
_OTHER_VARIABLES = {
    CONFIG_VARIABLE,
    HANDED_VARIABLE,
    "TAGTRAIL_ADMIN_URL",
    "TAGTRAIL_ALL_CLIENTS",
    "TAGTRAIL_APP_PASSWORD",
    "TAGTRAIL_OWNER_PASSWORD",
    "TAGTRAIL_OWNER_URL",
    "TAGTRAIL_PORT",
}
_TESTS_PREFIX = "TAGTRAIL_TEST_"
_DAY_S = 86_400
_PATHS = ("data", "test_clock", "kafka_ca_file", "kafka_cert_file", "kafka_key_file")
_SECRETS = ("database", "kafka_password")


class WrongOption(Exception):
    """The settings cannot be used; the message names the option and the reason."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a server. Times are seconds, sizes bytes; see `tagtrail.options` for each."""

    listen: str
    data: Path
    database: str | None
    workers: int
    threads: int
    connections: int
    idle_timeout_s: float
    insecure_open: bool
    public_url: str | None
    allow_host: tuple[str, ...]
    cors_origins: tuple[str, ...]
    log_format: str
    log_level: str
    access_log: bool
    manifest_bytes_max: int
    upload_expiry_s: float
    upload_log_days: int
    client_address_days: int
    upload_bodies_per_address: int
    upload_bodies_total: int
    upload_rate_min_bytes: int
    upload_grace_s: float
    upload_stall_s: float
    downloads_per_address: int
    downloads_total: int
    download_rate_min_bytes: int
    download_stall_s: float
    trusted_proxy: tuple[str, ...]
    chunk_bytes_min: int
    list_page_max: int
    append_timeout_s: float
    read_timeout_s: float
    database_pool: int
    appender: bool
    single_node: bool
    cache_bytes: int
    projector: bool
    kafka: str | None
    kafka_security_protocol: str
    kafka_ca_file: Path | None
    kafka_cert_file: Path | None
    kafka_key_file: Path | None
    kafka_sasl_mechanism: str
    kafka_username: str | None
    kafka_password: str | None
    kafka_topic_prefix: str
    kafka_replication: int
    test_clock: Path | None

    @property
    def database_url(self) -> str:
        """The database to connect to. A child process always knows it, because the supervisor has resolved it."""
        if self.database is None:
            raise WrongOption("no database: these settings were not handed over by a running server")
        return self.database

    @property
    def kafka_settings(self) -> KafkaSettings | None:
        """The settings of Kafka, None if it is not used."""
        if self.kafka is None:
            return None
        sasl = self.kafka_security_protocol.startswith("sasl")
        return KafkaSettings(
            servers=self.kafka,
            security_protocol=self.kafka_security_protocol.upper(),
            ca_file=_text(self.kafka_ca_file),
            cert_file=_text(self.kafka_cert_file),
            key_file=_text(self.kafka_key_file),
            sasl_mechanism=self.kafka_sasl_mechanism.upper() if sasl else None,
            username=self.kafka_username if sasl else None,
            password=self.kafka_password if sasl else None,
            prefix=self.kafka_topic_prefix,
            replication=self.kafka_replication or -1,
        )

    @property
    def host(self) -> str:
        """The address part of `listen`, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port part of `listen`."""
        return int(self.listen.rpartition(":")[2])

    @property
    def loopback(self) -> bool:
        """True if only this machine can reach the server."""
        return ipaddress.ip_address(self.host).is_loopback

    def to_json(self) -> str:
        """All values, for `from_json` in another process; holds the database's password."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """The settings that `to_json` wrote; raises WrongOption if they are of another version."""
        values = json.loads(text)
        if not isinstance(values, dict) or set(values) != {field.name for field in fields(cls)}:
            raise WrongOption("the settings handed over are of another version of tagtrail")
        for name in _PATHS:
            values[name] = None if values[name] is None else Path(values[name])
        for option in OPTIONS:
            if option.many:
                values[option.name] = tuple(values[option.name])
        return cls(**values)

    def with_database(self, url: str) -> "Settings":
        """The same settings with this database."""
        return replace(self, database=url)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings and, for each option, where its value came from."""

    settings: Settings
    origins: Mapping[str, str]


def resolve(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    config_file: str | Path | None = None,
) -> Resolved:
    """Resolve all options; `flags` holds only those given. Raises WrongOption."""
    flags = flags or {}
    environ = os.environ if environ is None else environ
    _refuse_unknown_variables(environ)
    path, from_file = _read_file(config_file, environ)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for option in OPTIONS:
        if option.name in flags:
            given, origin, place = flags[option.name], f"flag {option.flag_name}", option.flag_name
        elif option.variable in environ:
            given, origin, place = environ[option.variable], f"variable {option.variable}", option.variable
        elif option.name in from_file:
            given, origin, place = from_file[option.name], f"file {path}", f"{option.name} in {path}"
        else:
            values[option.name], origins[option.name] = option.default(values), "default"
            continue
        values[option.name], origins[option.name] = _read(option, given, place), origin
    settings = Settings(**values)
    _check_together(settings, origins)
    return Resolved(settings, origins)


def _read(option: Option, given: object, place: str) -> Any:
    try:
        return option.read(given)
    except InvalidValue as problem:
        shown = "" if option.name in _SECRETS else f" (given: {given!r})"
        raise WrongOption(f"{place}: {problem}{shown}") from None


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = _OTHER_VARIABLES | {option.variable for option in OPTIONS}
    for name in environ:
        if name.startswith("TAGTRAIL_") and not name.startswith(_TESTS_PREFIX) and name not in known:
            shown = [each for each in sorted(known) if each != HANDED_VARIABLE]
            raise WrongOption(f"unknown variable {name}{_suggestion(name, shown)}")


def _suggestion(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


def _read_file(config_file: str | Path | None, environ: Mapping[str, str]) -> tuple[Path, dict[str, object]]:
    named = config_file or environ.get(CONFIG_VARIABLE)
    path = Path(named) if named else Path(DEFAULT_FILE)
    if not named and not path.exists():
        return path, {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise WrongOption(f"the configuration file {path} cannot be read: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise WrongOption(f"the configuration file {path} is not valid TOML: {problem}") from None
    known = [option.name for option in OPTIONS if option.in_file]
    for key, value in values.items():
        if key not in known:
            raise WrongOption(f"{path}: unknown key {key!r}{_suggestion(key.replace('-', '_'), known)}")
        listed = BY_NAME[key].many and isinstance(value, list)
        if not listed and not isinstance(value, (str, int, float, bool)):
            raise WrongOption(f"{path}: {key} must be one value, not a table or a list")
    return path, values


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    if not settings.loopback and not settings.insecure_open:
        raise WrongOption(
            f"listen ({origins['listen']}): {settings.listen} can be reached by others, and whoever reaches this "
            "registry may push and delete, because there are no accounts yet. Use 127.0.0.1 or [::1] behind a proxy "
            "that asks who it is, or say --insecure-open if that is what you want"
        )
    kept_s = settings.upload_log_days * _DAY_S
    if 0 < kept_s < 2 * settings.upload_expiry_s:
        raise WrongOption(
            f"upload_log_days ({origins['upload_log_days']}) is {settings.upload_log_days}, less than twice "
            f"upload_expiry_s ({origins['upload_expiry_s']}, {settings.upload_expiry_s:g} s): an upload whose events "
            "are gone could be taken for a new one. Keep its events for longer, or for ever (0)"
        )
    if settings.test_clock is not None and not settings.loopback:
        raise WrongOption(
            f"{BY_NAME['test_clock'].variable} moves the clock of a test; it is refused unless the server listens on "
            f"loopback (it would listen on {settings.listen})"
        )
    if settings.kafka_security_protocol.startswith("sasl") and None in (
        settings.kafka_username,
        settings.kafka_password,
    ):
        raise WrongOption(
            f"kafka_security_protocol ({origins['kafka_security_protocol']}): {settings.kafka_security_protocol} needs "
            "kafka_username and kafka_password (variable TAGTRAIL_KAFKA_PASSWORD)"
        )
    if settings.upload_bodies_total >= settings.threads:
        raise WrongOption(
            f"upload_bodies_total ({origins['upload_bodies_total']}): {settings.upload_bodies_total} must be less than "
            f"threads ({settings.threads}), or slow uploads would keep reads from being served"
        )


def mask_url(url: str) -> str:
    """The URL with its password hidden."""
    parts = urlsplit(url)
    netloc = parts.netloc
    if "@" in netloc and ":" in netloc.rpartition("@")[0]:
        user, _, host = netloc.rpartition("@")
        netloc = f"{user.partition(':')[0]}:***@{host}"
    query = parse_qsl(parts.query, keep_blank_values=True)
    hidden = [(name, "***" if "password" in name.lower() else value) for name, value in query]
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(hidden, safe="/*")))


def hand_over(settings: Settings, path: Path) -> None:
    """Write the settings for child processes, readable by the owner alone, whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(settings.to_json())
    fresh.replace(path)


@lru_cache(maxsize=1)
def current_settings() -> Settings:
    """The settings that the supervisor handed to this process. Raises WrongOption if there are none."""
    path = os.environ.get(HANDED_VARIABLE)
    if path is None:
        raise WrongOption(f"{HANDED_VARIABLE} is not set: this process is started by `tagtrail serve`")
    try:
        return Settings.from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise WrongOption(f"the settings handed over in {path} cannot be read: {problem}") from problem
