"""The media types that the registry knows. Any other type of layer or config is accepted and stored as it is."""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFEST = "manifest"
INDEX = "index"

KIND_OF_TYPE = {
    OCI_MANIFEST: MANIFEST,
    DOCKER_MANIFEST: MANIFEST,
    OCI_INDEX: INDEX,
    DOCKER_LIST: INDEX,
}

# Layers that a registry need not hold, because their bytes may come from the addresses in `urls` alone
# (rule: missing blobs are listed).
NONDISTRIBUTABLE = frozenset(
    {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
