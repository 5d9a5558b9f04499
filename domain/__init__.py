"""The rules, pure: events, states, decisions, names, digests, manifests."""
