"""The page on performance is made from results, and from nothing else."""

from typing import Any

from bench.growth import FEWEST_BESIDE
from bench.pages import PAGE, page, written

MACHINE = {
    "cpu": "a processor",
    "cores": 2,
    "system": "Linux",
    "python": "3.11.7",
    "conclave": "0.1.0",
    "openbao": "OpenBao v2",
    "time": "2026-01-02T03:04:05+00:00",
    "load_before": 0.5,
}


def operation(program: str, rate: float, cpu: float) -> dict[str, Any]:
    return {
        "name": "kv-v2 read",
        "program": program,
        "rate": rate,
        "rate_spread": rate / 10,
        "p50_ms": 1.0,
        "p90_ms": 2.0,
        "p99_ms": 9.0,
        "p999_ms": 12.0,
        "cpu_microseconds": cpu,
        "written_bytes": 8192.0,
    }


OPERATIONS = [operation("conclave", 8000, 100), operation("openbao", 1000, 900)]


def test_ratios_are_those_of_the_results() -> None:
    results = {
        "machine": MACHINE,
        "operations": OPERATIONS,
        "idle": [{"program": "conclave", "resident_bytes": 58e6, "cpu_percent": 2.5}],
        "pauses": [{"program": "conclave", "collections": 1234, "total_ms": 567.0, "longest_ms": 0.9}],
        "layers": [{"layer": "barrier", "name": "seal", "microseconds": 2.0, "spread_microseconds": 0.1}],
    }

    text = page(results, None)

    assert "| kv-v2 read | 8,000 | 1,000 | **8.0 times** | 10% / 10% |" in text
    assert "| kv-v2 read | 1.0 / 1.0 | 2.0 / 2.0 | 9.0 / 9.0 | 12.0 / 12.0 |" in text
    assert "| 1,234 | 567 | 0.9 |" in text
    assert "| kv-v2 read | 100 | 900 | **1/9.0** | 8.0 | 8.0 |" in text
    assert "| conclave | 58 | 2.5 |" in text


def test_what_was_wanted_of_one_program_alone_is_held_to_its_ceiling() -> None:
    points = [
        {"dimension": "secrets", "size": size, "figures": {"read p50, ms": milliseconds, FEWEST_BESIDE: beside}}
        for size, milliseconds, beside in ((1000, 1.0, 1.0), (1_000_000, 3.0, 2.0))  # the machine has become slower
    ]
    idle = [{"program": "conclave", "resident_bytes": 59e6, "cpu_percent": 2.5}]
    results = {"machine": MACHINE, "operations": OPERATIONS, "layers": [], "idle": idle}

    text = page(results, {"machine": MACHINE, "growth": points})

    assert "| a node that is asked nothing | memory | at most 60 MB | 59 MB | yes |" in text
    assert "| kv-v2 read, 1,000,000 secrets | p50 beside 1,000 | at most 1.3 times | 1.5 times | **no** |" in text


def test_the_page_says_where_the_peer_is_better() -> None:
    ahead = [each | {"name": "health", "rate": 1e6 / each["rate"]} for each in OPERATIONS]

    text = page({"machine": MACHINE, "operations": [*OPERATIONS, *ahead], "layers": []}, None)

    assert (
        "OpenBao answers more requests a second of: health. Its median answer comes sooner for: none of these.\n"
        in text
    )


def test_growth_is_shown_if_it_was_measured() -> None:
    points = [
        {"dimension": "secrets", "size": size, "figures": {"read p50, ms": 1.0, "disk, MB": megabytes}}
        for size, megabytes in ((10, 1234.5), (1000, 30.0), (2000, 0.01234))
    ]
    results = {"machine": MACHINE, "operations": [], "layers": []}

    text = page(results, {"machine": MACHINE, "growth": points})

    assert "| secrets | read p50, ms | disk, MB |" in text
    assert "| 1,000 | 1 | 30 |" in text
    assert "| 10 | 1 | 1,234 |" in text
    assert "| 2,000 | 1 | 0.0123 |" in text
    assert "(plots/secrets.svg)" in text


def test_what_was_done_beside_something_else_has_no_costs() -> None:
    beside = [each | {"cpu_microseconds": None, "written_bytes": None} for each in OPERATIONS]

    text = page({"machine": MACHINE, "operations": beside, "layers": []}, None)

    assert "| kv-v2 read | 8,000 | 1,000 | **8.0 times** |" in text
    assert "## What it costs" in text
    assert "| kv-v2 read |" not in text.partition("## What it costs")[2]


def test_events_stand_beside_the_peer_s() -> None:
    killed = {"name": "leader killed", "median_seconds": 0.2, "worst_seconds": 0.3, "rounds": 5}
    events = [
        killed | {"program": "conclave"},
        killed | {"program": "openbao", "median_seconds": 8.0, "worst_seconds": 9.0},
    ]

    text = page({"machine": MACHINE, "operations": [], "layers": [], "events": events}, None)

    assert "| leader killed | 0.20 s / 0.30 s | 8.00 s / 9.00 s |" in text


def test_a_figure_of_much_data_stands_beside_its_bound() -> None:
    held = {"item": "open", "what": "open 2 GB", "value": 0.125, "unit": "s", "bound": 2.0}
    missed = {"item": "snapshot", "what": "memory", "value": 70.0, "unit": "MiB", "bound": 64.0}
    without = {"item": "snapshot", "what": "size", "value": 1093.0, "unit": "MB", "bound": None}
    results = {"machine": MACHINE, "operations": [], "layers": []}

    text = page(results, None, {"machine": MACHINE, "stress": [held, missed, without]})

    assert "| open | open 2 GB | 0.12 s | 2 | yes |" in text
    assert "| snapshot | memory | 70 MiB | 64 | **no** |" in text
    assert "| snapshot | size | 1,093 MB |  |  |" in text


def test_a_goal_that_is_missed_is_told_as_what_a_request_may_take() -> None:
    created = [each | {"name": "token create"} for each in OPERATIONS]
    cost = {"operation": "token create", "rate": 8000.0, "other_cpu_microseconds": 50.0}
    floors = [
        cost | {"what": "one node", "asked_cpu_microseconds": 110.0},
        cost | {"what": "three nodes", "asked_cpu_microseconds": 121.0},
    ]
    results = {"machine": MACHINE, "operations": created, "layers": []}

    text = page(results, None, None, {"machine": MACHINE, "floors": floors})

    assert "| token create | requests/s | 10 times better | 8.0 times | **no** |" in text
    assert "| token create | the node asked | 100 | 110 | 121 |" in text


def test_a_missed_cost_is_told_of_all_nodes_and_a_missed_latency_as_the_wait() -> None:
    written = [operation("conclave", 1000, 400), operation("openbao", 500, 900)]
    sixteen = [each | {"name": "kv-v2 write, 16 connections"} for each in written]
    one = [each | {"name": "kv-v2 write, 1 connection", "p50_ms": 2.0} for each in written]
    cost = {"rate": 1000.0, "asked_cpu_microseconds": 170.0, "other_cpu_microseconds": 80.0, "what": "three nodes"}
    floors = [cost | {"operation": each[0]["name"]} for each in (sixteen, one)]
    results = {"machine": MACHINE, "operations": [*sixteen, *one], "layers": []}

    text = page(results, None, None, {"machine": MACHINE, "floors": floors})

    assert "| kv-v2 write, 16 connections | all nodes | 150 | - | 250 |" in text
    assert "| kv-v2 write, 1 connection | the wait | 800 | - | 1,000 |" in text


def test_a_goal_that_is_met_has_no_budget() -> None:
    fast = [operation("conclave", 11_000, 100), operation("openbao", 1000, 900)]
    created = [each | {"name": "token create"} for each in fast]
    floor = {"operation": "token create", "what": "one node", "rate": 1.0}
    floors = [floor | {"asked_cpu_microseconds": 110.0, "other_cpu_microseconds": 0.0}]
    results = {"machine": MACHINE, "operations": created, "layers": []}

    text = page(results, None, None, {"machine": MACHINE, "floors": floors})

    assert "| token create | requests/s | 10 times better | 11.0 times | yes |" in text
    assert "What is missed" not in text


def test_the_page_in_the_repository_is_the_one_of_its_results() -> None:
    assert PAGE.read_text() == written()
