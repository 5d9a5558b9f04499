"""The wire that both APIs speak: routes, headers, error answers, paging."""
