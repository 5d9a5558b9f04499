"""The protocol that both APIs speak: routes, requests and answers, errors, ranges, pages."""
