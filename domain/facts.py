"""The facts that parsing a manifest gave. They are kept as our own JSON, so that folds never parse a client's JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from domain.event import to_json

# Facts keep annotations of up to so many bytes of JSON. Larger ones are read from the manifest when they are shown.
ANNOTATIONS_BYTES_MAX = 4096
# This stands in their place. A manifest that really has such an annotation is read when it is shown, too.
ANNOTATIONS_LEFT_OUT = "tagtrail.annotations-left-out"


@dataclass(frozen=True, slots=True)
class Reference:
    """One descriptor of a manifest. `role` is "config", "layer", "child" or "blob" (an index's child that is a blob).

    `size` is None where the client left it out; `platform` is "os/architecture[/variant]" where it was given.
    `required` is False for layers that the registry need not hold (rule: missing blobs are listed).
    """

    role: str
    digest: str
    media_type: str
    size: int | None = None
    platform: str | None = None
    required: bool = True
    artifact_type: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """The known facts of a manifest: all that pages and lists need of it, except for large annotations.

    `kind` is "manifest" or "index". `artifact_type` is the one that the referrers API lists. `platform`, `created` (as
    the config says it), `labels` and `history` are there if the config has them (rule: configs may be anything). `size`
    is the sum of the sizes that the descriptors name, in bytes.
    """

    kind: str
    references: tuple[Reference, ...] = ()
    subject: str | None = None
    artifact_type: str | None = None
    config_media_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    platform: str | None = None
    created: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    history: tuple[str, ...] = ()

    @property
    def config_digest(self) -> str | None:
        """The digest of the config blob, if the manifest names one."""
        return next((each.digest for each in self.references if each.role == "config"), None)


_REFERENCE = tuple(each.name for each in fields(Reference))
_FACTS = tuple(each.name for each in fields(Facts))


def facts_to_json(facts: Facts, *, whole: bool = False) -> str:
    """The facts as canonical JSON."""
    # dataclasses.asdict copies deeply, which takes five times as long and is not needed here.
    values = {name: getattr(facts, name) for name in _FACTS}
    values["references"] = [{name: getattr(each, name) for name in _REFERENCE} for each in facts.references]
    values["annotations"] = dict(facts.annotations) if whole else _kept(facts.annotations)
    values["labels"] = dict(facts.labels)
    return to_json(values)


def annotations_to_json(annotations: Mapping[str, str]) -> str:
    """The annotations as JSON, just as the database would write them: keys in order of bytes, no needless escapes."""
    return json.dumps(dict(annotations), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def small_annotations_json(facts: Facts) -> str | None:
    """The annotations as JSON; None if they are so large that they must be read from the manifest itself."""
    if ANNOTATIONS_LEFT_OUT in facts.annotations:
        return None
    text = annotations_to_json(facts.annotations)
    return text if len(text.encode()) <= ANNOTATIONS_BYTES_MAX else None


def _kept(annotations: Mapping[str, str]) -> dict[str, str]:
    if len(annotations_to_json(annotations).encode()) > ANNOTATIONS_BYTES_MAX:
        return {ANNOTATIONS_LEFT_OUT: ""}
    return dict(annotations)


def facts_from_json(text: str) -> Facts:
    """The facts that `facts_to_json` wrote, or a part of them."""
    values = json.loads(text)
    values["references"] = tuple(Reference(**each) for each in values["references"])
    values["history"] = tuple(values.get("history", ()))
    return Facts(**values)
