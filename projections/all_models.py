"""The list of all read models."""

from projections.model import Model
from projections.models import audit, blob_references, catalog, links, manifests, referrers, tags

MODELS: tuple[Model, ...] = (
    catalog.model,
    tags.model,
    manifests.model,
    referrers.model,
    links.model,
    blob_references.model,
    audit.model,
)


class UnknownModel(ValueError):
    """There is no read model of this name."""


def models_named(name: str) -> tuple[Model, ...]:
    """The model of this name, or every one for "all"; raises UnknownModel."""
    if name == "all":
        return MODELS
    found = tuple(each for each in MODELS if each.name == name)
    if not found:
        known = ", ".join(each.name for each in MODELS)
        raise UnknownModel(f"there is no read model {name!r}; there are: {known}, and all")
    return found
