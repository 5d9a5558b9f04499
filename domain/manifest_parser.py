"""Parses manifests strictly: their type, the things that they name, and the reason if one is refused."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from domain.digests import InvalidDigest, digest_of, parse_digest
from domain.facts import Facts, Reference
from domain.media_types import INDEX, KIND_OF_TYPE, MANIFEST, NONDISTRIBUTABLE
from domain.strict_json import InvalidJson, parse_object

# More descriptors than fit into 4 MiB, which every registry must take: the shortest one has 94 bytes.
DESCRIPTORS_MAX = 50_000
# Bounded, because a client that lists the referrers of a manifest gets the annotations of every one.
ANNOTATIONS_BYTES_MAX = 4 * 1024 * 1024
_TEXT_LENGTH_MAX = 1024

_FIELDS = frozenset(
    {
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "subject",
        "annotations",
    }
)
_DESCRIPTOR_FIELDS = frozenset(
    {"mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"}
)
_LOWER_FIELDS = {each.lower(): each for each in _FIELDS}
_LOWER_DESCRIPTOR_FIELDS = {each.lower(): each for each in _DESCRIPTOR_FIELDS}


class InvalidManifest(ValueError):
    """The manifest is refused: 400 MANIFEST_INVALID."""


class InvalidManifestDigest(InvalidManifest):
    """A descriptor names something that is no digest: 400 DIGEST_INVALID."""


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    """A manifest that may be stored. `warning` says that its types differ in flavour (rule: the last type wins)."""

    media_type: str
    facts: Facts
    warning: str | None = None


def parse_manifest(body: bytes, content_type: str) -> ParsedManifest:
    """Parse and check a manifest that was sent with this Content-Type.

    Raises InvalidManifest (or InvalidManifestDigest) with a message for the client.
    """
    try:
        document = parse_object(body)
    except InvalidJson as problem:
        raise InvalidManifest(str(problem)) from problem
    _refuse_look_alikes(document, _FIELDS, _LOWER_FIELDS)
    version = document.get("schemaVersion")
    if version != 2 or not isinstance(version, int) or isinstance(version, bool):
        raise InvalidManifest("schemaVersion must be 2: manifests of schema 1 are not accepted")
    media_type, warning = _media_type(document, content_type)
    kind = KIND_OF_TYPE[media_type]
    _check_kind(document, kind)
    facts = _index_facts(document) if kind == INDEX else _manifest_facts(document)
    _check_size(facts.annotations)
    return ParsedManifest(media_type, facts, warning)


def _refuse_look_alikes(value: Mapping[str, Any], fields: frozenset[str], lower: Mapping[str, str]) -> None:
    """Refuse look-alikes: some clients ignore case and would read them instead (rule: strict JSON)."""
    for name in value:
        if name not in fields and name.lower() in lower:
            raise InvalidManifest(f"the member {name[:40]!r} must be written {lower[name.lower()]!r}")


def _media_type(document: Mapping[str, Any], content_type: str) -> tuple[str, str | None]:
    sent = content_type.partition(";")[0].strip().lower()
    inside = document.get("mediaType")
    if inside is not None and not isinstance(inside, str):
        raise InvalidManifest("mediaType must be a string")
    if inside is not None and inside not in KIND_OF_TYPE:
        raise InvalidManifest(f"unsupported mediaType {inside[:100]!r}")
    if sent not in KIND_OF_TYPE:
        if sent.endswith((".manifest.v1+json", ".manifest.v1+prettyjws")) or inside is None:
            raise InvalidManifest(f"unsupported Content-Type {content_type[:100]!r}")
        return inside, None
    if inside is None or inside == sent:
        return sent, None
    if KIND_OF_TYPE[inside] != KIND_OF_TYPE[sent]:
        raise InvalidManifest(f"Content-Type is {sent} but mediaType is {inside}")
    return sent, f"Content-Type {sent} differs from mediaType {inside}; the Content-Type is kept"


def _check_kind(document: Mapping[str, Any], kind: str) -> None:
    has_children = document.get("manifests") is not None
    has_layers = document.get("config") is not None or document.get("layers") is not None
    if has_children and has_layers:
        raise InvalidManifest("a manifest must not hold both manifests and config or layers")
    if kind == INDEX and has_layers:
        raise InvalidManifest("an index has no config or layers")
    if kind == MANIFEST and has_children:
        raise InvalidManifest("an image manifest has no manifests")
    if kind == INDEX and "manifests" not in document:
        raise InvalidManifest("an index must have manifests")
    if kind == MANIFEST and document.get("config") is None:
        raise InvalidManifest("an image manifest must have a config")


def _manifest_facts(document: Mapping[str, Any]) -> Facts:
    config = _descriptor(document["config"], "config")
    layers = [_descriptor(each, "layer") for each in _list(document, "layers")]
    artifact_type = _text(document, "artifactType") or config.media_type
    references = (config, *layers)
    return _facts(document, MANIFEST, references, artifact_type, config.media_type)


def _index_facts(document: Mapping[str, Any]) -> Facts:
    children = tuple(_descriptor(each, "child") for each in _list(document, "manifests"))
    return _facts(document, INDEX, children, _text(document, "artifactType") or None, None)


def _facts(
    document: Mapping[str, Any],
    kind: str,
    references: tuple[Reference, ...],
    artifact_type: str | None,
    config_media_type: str | None,
) -> Facts:
    subject = document.get("subject")
    return Facts(
        kind=kind,
        references=references,
        subject=None if subject is None else _descriptor(subject, "subject").digest,
        artifact_type=artifact_type,
        config_media_type=config_media_type,
        annotations=_annotations(document),
        size=sum(each.size or 0 for each in references),
    )


def _check_size(annotations: Mapping[str, str]) -> None:
    if sum(len(name.encode()) + len(value.encode()) for name, value in annotations.items()) > ANNOTATIONS_BYTES_MAX:
        raise InvalidManifest(f"the annotations have more than {ANNOTATIONS_BYTES_MAX} bytes")


def annotations_of(body: bytes) -> dict[str, str]:
    """The annotations of a manifest that was accepted before."""
    return _annotations(parse_object(body))


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidManifest(f"{name} must be a list")
    if len(value) > DESCRIPTORS_MAX:
        raise InvalidManifest(f"{name} has more than {DESCRIPTORS_MAX} descriptors")
    return value


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if text is None:
        return ""
    if not isinstance(text, str) or len(text) > _TEXT_LENGTH_MAX:
        raise InvalidManifest(f"{name} must be a string of at most {_TEXT_LENGTH_MAX} characters")
    return text


def _annotations(value: Mapping[str, Any]) -> dict[str, str]:
    annotations = value.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(isinstance(each, str) for each in annotations.values()):
        raise InvalidManifest("annotations must map strings to strings")
    return annotations


def _descriptor(value: Any, role: str) -> Reference:
    if not isinstance(value, dict):
        raise InvalidManifest(f"the {role} must be a descriptor")
    _refuse_look_alikes(value, _DESCRIPTOR_FIELDS, _LOWER_DESCRIPTOR_FIELDS)
    digest = _digest(value, role)
    media_type = _text(value, "mediaType")
    size = value.get("size")
    if size is None:
        if role != "child":
            raise InvalidManifest(f"the {role} {digest} has no size")
    elif not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise InvalidManifest(f"the size of the {role} {digest} must be a whole number of bytes, 0 or more")
    _annotations(value)
    _check_data(value, digest, size)
    _check_urls(value)
    if role == "child" and media_type not in KIND_OF_TYPE:
        role = "blob"
    return Reference(
        role=role,
        digest=digest,
        media_type=media_type,
        size=size,
        platform=_platform(value.get("platform")),
        required=media_type not in NONDISTRIBUTABLE,
        artifact_type=_text(value, "artifactType") or None,
    )


def _digest(value: Mapping[str, Any], role: str) -> str:
    text = value.get("digest")
    if not isinstance(text, str):
        raise InvalidManifest(f"the {role} has no digest")
    try:
        return str(parse_digest(text))
    except InvalidDigest as problem:
        raise InvalidManifestDigest(f"the {role}: {problem}") from problem


def _check_data(value: Mapping[str, Any], digest: str, size: int | None) -> None:
    data = value.get("data")
    if data is None:
        return
    if not isinstance(data, str):
        raise InvalidManifest(f"the data of {digest} must be a base64 string")
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise InvalidManifest(f"the data of {digest} is not base64") from problem
    if size is not None and len(decoded) != size:
        raise InvalidManifest(f"the data of {digest} does not have the descriptor's size")
    if str(digest_of(digest.partition(":")[0], decoded)) != digest:
        raise InvalidManifest(f"the data of {digest} has another digest")


def _check_urls(value: Mapping[str, Any]) -> None:
    urls = value.get("urls")
    if urls is None:
        return
    if not isinstance(urls, list) or not all(isinstance(each, str) for each in urls):
        raise InvalidManifest("urls must be a list of strings")
    for each in urls:
        try:
            parts = urlsplit(each)
        except ValueError as problem:
            raise InvalidManifest("urls has an entry that is not an address") from problem
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.fragment:
            raise InvalidManifest("urls must be http or https addresses without a fragment")


def _platform(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidManifest("a platform must be an object")
    parts = [value.get(name) for name in ("os", "architecture", "variant")]
    return "/".join(each[:64] for each in parts if isinstance(each, str) and each) or None
