"""Options: the place that each value comes from, and the words about wrong ones."""

from pathlib import Path
from typing import Any

import pytest

from tagtrail.config import Settings, WrongOption, hand_over, mask_url, resolve
from tagtrail.options import OPTIONS

URL = "postgresql://tagtrail_app:s3cret@db:5432/tagtrail"


@pytest.mark.parametrize(
    ("flag", "variable", "in_file", "expected", "origin"),
    [
        ("6001", "6002", "6003", "127.0.0.1:6001", "flag --listen"),
        (None, "6002", "6003", "127.0.0.1:6002", "variable TAGTRAIL_LISTEN"),
        (None, None, "6003", "127.0.0.1:6003", "file "),
        (None, None, None, "127.0.0.1:5000", "default"),
        ("6001", None, "6003", "127.0.0.1:6001", "flag --listen"),
    ],
)
def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(
    tmp_path: Path, flag: str | None, variable: str | None, in_file: str | None, expected: str, origin: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("" if in_file is None else f'listen = "127.0.0.1:{in_file}"\n')
    flags = {} if flag is None else {"listen": f"127.0.0.1:{flag}"}
    environ = {} if variable is None else {"TAGTRAIL_LISTEN": f"127.0.0.1:{variable}"}
    found = resolve(flags, environ, file)
    assert found.settings.listen == expected
    assert found.origins["listen"].startswith(origin)


def test_the_file_is_named_by_flag_then_variable_then_found_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, pool in (("tagtrail.toml", 1), ("variable.toml", 2), ("flag.toml", 3)):
        (tmp_path / name).write_text(f"database_pool = {pool}\n")
    named = {"TAGTRAIL_CONFIG": "variable.toml"}
    assert resolve({}, {}).settings.database_pool == 1
    assert resolve({}, named).settings.database_pool == 2
    assert resolve({}, named, "flag.toml").settings.database_pool == 3


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("listen", "localhost:80", "127.0.0.1:80"),
        ("listen", "[::1]:0", "[::1]:0"),
        ("upload_expiry_s", "24h", 86400.0),
        ("upload_expiry_s", "1.5m", 90.0),
        ("upload_expiry_s", 30, 30.0),
        ("upload_expiry_s", "84h", 302400.0),
        ("upload_log_days", "2", 2),
        ("upload_log_days", 0, 0),
        ("manifest_bytes_max", "4MiB", 4 << 20),
        ("trusted_proxy", "10.0.0.7, 192.168.0.0/16,::1", ("10.0.0.7/32", "192.168.0.0/16", "::1/128")),
        ("trusted_proxy", ["10.0.0.7", "10.0.0.8"], ("10.0.0.7/32", "10.0.0.8/32")),
        ("trusted_proxy", "", ()),
        ("manifest_bytes_max", 4096, 4096),
        ("workers", "3", 3),
        ("access_log", "off", False),
        ("access_log", True, True),
        ("log_format", "JSON", "json"),
        ("public_url", "HTTPS://Registry.Example:8443/", "https://registry.example:8443"),
        ("public_url", "http://[::1]:5000", "http://[::1]:5000"),
        ("public_url", "", None),
        ("allow_host", "Registry.Example., 192.0.2.7,[2001:db8::1]", ("registry.example", "192.0.2.7", "2001:db8::1")),
        ("allow_host", "", ()),
        ("cors_origins", "https://UI.example, http://localhost:3000", ("https://ui.example", "http://localhost:3000")),
        ("cors_origins", ["*"], ("*",)),
        ("cors_origins", "", ()),
        ("database", "", None),
        ("database", URL, URL),
    ],
)
def test_values_are_read_in_the_forms_that_people_write(name: str, value: object, expected: object) -> None:
    assert getattr(resolve({name: value}, {}).settings, name) == expected


BAD_VALUES = [
    ("listen", "5000", "HOST:PORT"),
    ("listen", "127.0.0.1:65536", "HOST:PORT"),
    ("listen", "127.0.0.1:port", "HOST:PORT"),
    ("listen", "example.org:5000", "IP address or localhost"),
    ("listen", ":5000", "IP address or localhost"),
    ("data", "", "path of a folder"),
    ("data", "a\0b", "path of a folder"),
    ("database", "mysql://u@h/d", "postgresql://USER"),
    ("database", "postgresql://u@h", "names no database"),
    ("public_url", "registry.example", "https://registry.example.com"),
    ("public_url", "https://registry.example/path", "without a path"),
    ("public_url", "https://registry.example:65536", "without a path"),
    ("public_url", "https://registry.example:0", "without a path"),
    ("public_url", "https://user@registry.example", "without a path"),
    ("allow_host", "registry.example:5000", "without a port"),
    ("allow_host", "https://registry.example", "without a port"),
    ("allow_host", "a:b", "without a port"),
    ("cors_origins", "ui.example", "origins such as"),
    ("cors_origins", "https://ui.example/", "origins such as"),
    ("cors_origins", "https://ui.example:99999", "origins such as"),
    ("workers", "0", "from 1 to 256"),
    ("workers", "two", "from 1 to 256"),
    ("workers", "-1", "from 1 to 256"),
    ("workers", True, "from 1 to 256"),
    ("threads", 2.5, "from 4 to 4096"),
    ("upload_expiry_s", "soon", "24h"),
    ("upload_expiry_s", "0", "from 1"),
    ("upload_expiry_s", "85h", "upload_log_days (default) is 7, less than twice"),
    ("upload_log_days", "1", "is 1, less than twice upload_expiry_s (default, 86400 s)"),
    ("upload_log_days", -1, "from 0 to 36500"),
    ("append_timeout_s", True, "seconds"),
    ("manifest_bytes_max", "10 parsecs", "10MiB"),
    ("manifest_bytes_max", "1000MiB", "67108864"),
    ("log_format", "xml", "text, json"),
    ("log_level", "loud", "debug, info, warning, error"),
    ("projector", "maybe", "true or false"),
    ("trusted_proxy", "10.0.0.1/8", "10.0.0.7,192.168.0.0/16"),
    ("download_stall_s", "0", "from 1"),
    ("upload_stall_s", "0", "from 1"),
    ("trusted_proxy", "nginx", "10.0.0.7,192.168.0.0/16"),
]


@pytest.mark.parametrize(("name", "value", "hint"), BAD_VALUES)
def test_a_wrong_value_names_its_option_and_what_would_be_right(name: str, value: object, hint: str) -> None:
    with pytest.raises(WrongOption) as caught:
        resolve({name: value}, {})
    assert f"--{name.replace('_', '-')}" in str(caught.value)
    assert hint in str(caught.value)
    if isinstance(value, str):
        with pytest.raises(WrongOption, match=f"TAGTRAIL_{name.upper()}"):
            resolve({}, {f"TAGTRAIL_{name.upper()}": value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('lisen = "127.0.0.1:1"', "unknown key 'lisen'; did you mean listen?"),
        ('log-level = "info"', "unknown key 'log-level'; did you mean log_level?"),
        ("zzz = 1", "unknown key 'zzz'; known: listen, data"),
        ('test_clock = "x"', "unknown key 'test_clock'"),
        ("[serve]\nworkers = 2", "unknown key 'serve'"),
        ("workers = [2]", "workers must be one value"),
        ("workers = ", "not valid TOML"),
        ("workers = 'many'", "workers in "),
    ],
)
def test_a_wrong_file_says_what_is_wrong_in_it(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(WrongOption) as caught:
        resolve({}, {}, file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(WrongOption, match="No such file"):
        resolve({}, {}, tmp_path / "absent.toml")


def test_a_misspelt_variable_is_refused_but_not_those_of_tests() -> None:
    with pytest.raises(WrongOption, match="TAGTRAIL_LISTN; did you mean TAGTRAIL_LISTEN"):
        resolve({}, {"TAGTRAIL_LISTN": "127.0.0.1:1"})
    resolve({}, {"TAGTRAIL_TEST_REGISTRY": "127.0.0.1:1", "TAGTRAIL_ALL_CLIENTS": "1"})


@pytest.mark.parametrize("address", ["0.0.0.0:5000", "[::]:5000", "192.0.2.1:5000"])
def test_an_address_that_others_reach_needs_a_word_of_consent(address: str) -> None:
    with pytest.raises(WrongOption, match=r"no accounts yet.*--insecure-open"):
        resolve({"listen": address}, {})
    assert not resolve({"listen": address, "insecure_open": True}, {}).settings.loopback


@pytest.mark.parametrize("address", ["127.0.0.1:5000", "127.8.8.8:5000", "[::1]:5000", "localhost:5000"])
def test_an_address_on_loopback_needs_no_word_of_consent(address: str) -> None:
    assert resolve({"listen": address}, {}).settings.loopback


def test_the_clock_of_tests_is_refused_where_others_reach_the_server() -> None:
    environ = {"TAGTRAIL_TEST_CLOCK": "/nonexistent/offset", "TAGTRAIL_INSECURE_OPEN": "true"}
    with pytest.raises(WrongOption, match="TAGTRAIL_TEST_CLOCK"):
        resolve({"listen": "0.0.0.0:5000"}, environ)
    assert resolve({}, environ).settings.test_clock == Path("/nonexistent/offset")


def test_slow_uploads_may_never_take_all_threads() -> None:
    assert resolve({"threads": 100}, {}).settings.upload_bodies_total == 75
    with pytest.raises(WrongOption, match="upload_bodies_total"):
        resolve({"threads": 100, "upload_bodies_total": 100}, {})


@pytest.mark.parametrize("value", ["mysql://u:s3cret@h/d", "postgresql://u:s3cret@h:port/d", "postgresql://u:s3cret@h"])
def test_a_wrong_database_is_refused_without_repeating_its_password(value: str) -> None:
    with pytest.raises(WrongOption) as caught:
        resolve({}, {"TAGTRAIL_DATABASE": value})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        (URL, "postgresql://tagtrail_app:***@db:5432/tagtrail"),
        ("postgresql://u:p%40x@h/d?sslmode=require", "postgresql://u:***@h/d?sslmode=require"),
        ("postgresql://u@/d?host=/run/pg&password=s3cret", "postgresql://u@/d?host=/run/pg&password=***"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
    ],
)
def test_a_shown_url_hides_its_password(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_settings_reach_a_child_process_whole_and_privately(tmp_path: Path) -> None:
    settings = resolve({"database": URL, "data": str(tmp_path)}, {"TAGTRAIL_TEST_CLOCK": "offset"}).settings
    file = tmp_path / "handed.json"
    hand_over(settings, file)
    hand_over(settings, file)
    assert Settings.from_json(file.read_text()) == settings
    assert file.stat().st_mode & 0o777 == 0o600


def test_settings_of_another_version_are_refused() -> None:
    with pytest.raises(WrongOption, match="another version"):
        Settings.from_json('{"listen": "127.0.0.1:5000"}')


def test_every_option_has_help_and_a_field() -> None:
    fields: dict[str, Any] = Settings.__dataclass_fields__
    assert [option.name for option in OPTIONS] == list(fields)
    assert all(option.help.endswith(".") for option in OPTIONS)
