"""The arithmetic of the bench: medians, ratios, errors, comparisons of two runs. No registry is started."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bench.registries import compare, history, report, rows, run
from bench.registries.peers import OURS
from bench.registries.results import Results, RowResult, Sample, from_json

PEER = "docker-registry"
SAMPLE = Sample(
    rate=100.0,
    p50_ms=1.0,
    p99_ms=5.0,
    errors=0,
    cpu_s_per_1000=2.0,
    load_cpu_s_per_1000=0.5,
    pss_bytes=300 << 20,
)


def row(ours: list[float], peer: list[float], key: str = "ping", goal: float = 15) -> RowResult:
    """A row of these rates, with a limit."""
    samples = {name: [replace(SAMPLE, rate=rate) for rate in rates] for name, rates in ((OURS, ours), (PEER, peer))}
    goals, limits = {PEER: goal, "bare WSGI": 0.4}, {"bare WSGI": [50_000.0, 40_000.0, 45_000.0]}
    return RowResult(key, f"row {key}", "/s", goals, {PEER: 1.1}, samples, limits)


def results(*of: RowResult) -> Results:
    """A run on two processors."""
    return Results({"commit": "abc"}, 2, [OURS, PEER], {OURS: 200 << 20, PEER: 30 << 20}, list(of))


def line(text: str, name: str) -> list[str]:
    """The cells of the line with this name in a printed table."""
    (found,) = [each for each in text.splitlines() if each.startswith(f"| {name} ") and each.count("|") > 5]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_row_is_the_median_with_its_ratio_and_goal() -> None:
    """One slow run and one fast run change nothing; a peer and a limit have a goal each."""
    text = report.table(results(row([20_000, 10, 90_000], [1_000, 1_000, 1])))
    assert line(text, "row ping") == [
        *("row ping", "/s", "20,000", "5.00", "1,000", "5.00", "20.0x of 15x met"),
        "bare WSGI 45,000 (0.444x of 0.4x met)",
    ]
    assert "errors: none" in text
    missed = line(report.table(results(row([14_000], [1_000]))), "row ping")
    assert missed[6:] == ["14.0x of 15x missed", "bare WSGI 45,000 (0.311x of 0.4x missed)"]


def test_processor_time_is_related_to_that_of_a_peer() -> None:
    """Its goal is met by a ratio that is at most as high, not at least."""
    found = row([20_000], [1_000])
    found.samples[OURS] = [replace(SAMPLE, cpu_s_per_1000=2.1)]
    assert f"row ping: 1.05x the processor time of {PEER} (at most 1.1x: met)" in report.table(results(found))
    found.samples[OURS] = [replace(SAMPLE, cpu_s_per_1000=3.0)]
    assert f"row ping: 1.50x the processor time of {PEER} (at most 1.1x: missed)" in report.table(results(found))


def test_one_error_voids_the_figures_of_a_registry() -> None:
    """No rate, ratio or verdict is shown, and the first error is told."""
    found = row([20_000, 20_000], [1_000, 1_000])
    found.samples[PEER][1] = replace(SAMPLE, errors=3, first_error="status 500")
    text = report.table(results(found))
    assert line(text, "row ping")[4:7] == ["void", "void", "-"]
    assert line(text, "row ping")[2] == "20,000"
    assert f"row ping, {PEER}: 3 errors, so void: status 500" in text


def test_reads_beside_pushes_are_related_to_the_processors_that_these_leave() -> None:
    """100 pushes a second of 10 ms each leave one of two processors, so half of the quiet rate counts as all of it."""
    quiet, pushes = row([1_000], [100], "manifest-tag"), row([100], [20], "push-small")
    pushes.samples[OURS] = [replace(SAMPLE, rate=100, cpu_s_per_1000=8, load_cpu_s_per_1000=2)]
    beside = row([500], [50], "get-while-push")
    beside.samples[OURS] = [replace(SAMPLE, rate=500, other_rate=100)]
    assert report.quiet_share(results(quiet, pushes, beside)) == pytest.approx(1.0)
    assert report.quiet_share(results(quiet, beside)) is None


def test_json_gives_the_same_results_back() -> None:
    """So a comparison sees all that a run has measured."""
    made = results(row([1, 2], [3, 4]))
    assert from_json(made.to_json()) == made
    with pytest.raises(KeyError):
        from_json("{}")


def test_runs_of_before_rows_had_several_goals_can_be_compared() -> None:
    """In such a run each row had one `goal`."""
    made = results(row([1], [2]))
    found = json.loads(made.to_json())
    for each in found["rows"]:
        del each["goals"], each["cpu_goals"]
        each["goal"] = 15.0
    earlier = from_json(json.dumps(found))
    assert [each.samples for each in earlier.rows] == [each.samples for each in made.rows]
    assert earlier.rows[0].goals == {}


def test_a_change_is_marked_only_where_the_runs_do_not_overlap() -> None:
    """Ours has become faster for certain, the peer perhaps not."""
    old, new = results(row([90, 100, 110], [90, 100, 110])), results(row([150, 160, 170], [95, 101, 111]))
    cells = line(compare.compared(old, new), "row ping")
    assert cells == ["row ping", "/s", "100", "160", "+60 % *", "100", "101", "+1 %"]
    assert "row ping" not in compare.compared(old, results(row([1], [1], "other")))


def test_a_history_with_a_gap_is_not_complete() -> None:
    """Each move begins where the one before led, and the first one at nothing."""
    moves = [
        {"position": position, "from": before, "to": after}
        for position, before, after in ((9, "b", "c"), (5, "a", "b"), (2, None, "a"))
    ]
    assert history.gap_in(moves, 3) == ""
    assert history.gap_in(moves, 4) == "4 pushes moved latest, its history has 3 entries"
    assert history.gap_in([moves[0], moves[2]], 2) == "latest moved from b at 9, but led to a before"
    assert history.gap_in(moves[:2], 2) == "latest moved from a at 5, but led to None before"


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (503, b"{}", "HTTP Error 503: Service Unavailable"),
        (200, b"no JSON", "Expecting value"),
        (200, b"{}", "entries"),
        (200, b'{"entries": [{}], "next": null}', "from"),
        (200, b'{"entries": 1, "next": null}', "not iterable"),
    ],
)
def test_a_history_that_cannot_be_read_is_an_error_of_its_row(status: int, body: bytes, problem: str) -> None:
    """A run takes long, and one unreadable history must not lose what the other rows measured."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server, ThreadPoolExecutor(1) as pool:
        server.timeout = 30
        answering = pool.submit(server.handle_request)
        found = history.gap(f"127.0.0.1:{server.server_port}", "1", 1)
        answering.result(30)
    assert found.startswith("the history cannot be read: ")
    assert problem in found


def test_a_history_of_a_registry_that_has_ended_is_an_error_of_its_row() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    assert "refused" in history.gap(f"127.0.0.1:{port}", "1", 1)


def test_options_are_read_and_unknown_rows_are_refused() -> None:
    """A typo must not measure everything."""
    options = run.options_of({"BENCH_ROWS": "ping, blob-4k", "BENCH_IMAGES": "200", "BENCH_RUNS": "1"})
    assert [each.key for each in options.rows] == ["ping", "blob-4k"]
    assert (options.size.images, options.size.repositories, options.runs, options.seconds) == (200, 20, 1, 5)
    with pytest.raises(ValueError, match="no such row: pong"):
        run.options_of({"BENCH_ROWS": "pong"})
    assert len({each.key for each in rows.ROWS}) == len(rows.ROWS)
