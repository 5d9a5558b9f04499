"""Upload sessions: requests of clients, ids that prove themselves, expiry and what crashes leave."""
