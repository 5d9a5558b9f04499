"""The grammars of names."""

import pytest

from domain.names import InvalidName, parse_repository_name, parse_tag, parse_upload_id


@pytest.mark.parametrize("name", ["a", "a/b", "a__b", "a--b", "a---b", "a.b/c_d", "blobs/uploads", "0/9", "a" * 255])
def test_a_legal_repository_name_is_taken(name: str) -> None:
    """All that the specification's grammar allows."""
    assert parse_repository_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "a/B",
        "../x",
        "a/../b",
        "a//b",
        "/a",
        "a/",
        "a\n",
        "a\x00",
        "_upload",
        "a_",
        "a..b",
        "a___b",
        "a b",
        "a" * 256,
        "é",
        "-a",
        "a._b",
    ],
)
def test_an_illegal_repository_name_is_refused(name: str) -> None:
    """Each of these could leave a folder or confuse a client."""
    with pytest.raises(InvalidName):
        parse_repository_name(name)


@pytest.mark.parametrize("tag", ["latest", "V1", "_x", "1.0-rc.1", "a" * 128, "sha256-" + "a" * 64 + ".sig"])
def test_a_legal_tag_is_taken(tag: str) -> None:
    """Tags keep their case."""
    assert parse_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a/b", "a:b", "a\n", "a b", "a" * 129, "ä"])
def test_an_illegal_tag_is_refused(tag: str) -> None:
    """All that the grammar does not allow."""
    with pytest.raises(InvalidName):
        parse_tag(tag)


@pytest.mark.parametrize("upload", ["", "short", "A" * 32, "a" * 65, "../" + "a" * 30, "a" * 32 + "\n"])
def test_an_illegal_upload_id_is_refused(upload: str) -> None:
    """A session id names a file."""
    with pytest.raises(InvalidName):
        parse_upload_id(upload)
