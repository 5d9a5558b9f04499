"""Upload sessions: requests of clients, ids that prove themselves, expiry, and files that crashes leave."""
