"""The requests that change something: uploads, manifests, deletions."""
