"""The rules of a registry as pure code: events, states, decisions, names, digests, manifests."""
