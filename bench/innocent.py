"""Measures the GETs of a well-behaved client while a bench puts its load on the same server."""

import http.client
import threading
import time

READERS = 4
PAUSE_S = 0.01


def measure(title: str, host: str, repository: str, seconds: float, goal_p99_ms: float | None = None) -> None:
    """Ask for the manifest v1 of a repository for a while, and print percentiles of the times."""
    times: list[float] = []
    until = time.monotonic() + seconds

    def read() -> None:
        connection = http.client.HTTPConnection(host, timeout=30)
        while (began := time.monotonic()) < until:
            connection.request("GET", f"/v2/{repository}/manifests/v1")
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            times.append((time.monotonic() - began) * 1000)
            time.sleep(PAUSE_S)

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    times.sort()
    goal = "" if goal_p99_ms is None else f" (goal: p99 below {goal_p99_ms:g} ms)"
    print(
        f"{title}: {len(times)} GETs, p50 {times[len(times) // 2]:.1f} ms, p99 {times[len(times) * 99 // 100]:.1f} ms,"
        f" longest {times[-1]:.1f} ms{goal}",
        flush=True,
    )
