"""Everything that changes something: uploads, manifests, deletions."""
