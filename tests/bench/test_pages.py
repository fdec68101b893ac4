"""The page on performance is made from results, and from nothing else."""

import json
from typing import Any

from bench.pages import PAGE, page
from bench.report import RESULTS

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
        "p50_ms": 1.0,
        "p99_ms": 9.0,
        "cpu_microseconds": cpu,
        "written_bytes": 8192.0,
    }


def test_ratios_are_those_of_the_results() -> None:
    results = {
        "machine": MACHINE,
        "operations": [operation("conclave", 8000, 100), operation("openbao", 1000, 900)],
        "idle": [{"program": "conclave", "resident_bytes": 58e6, "cpu_percent": 2.5}],
        "layers": [{"layer": "barrier", "name": "seal", "microseconds": 2.0, "spread_microseconds": 0.1}],
    }

    text = page(results, None)

    assert "| kv-v2 read | 8,000 | 1,000 | **8.0 times** |" in text
    assert "| kv-v2 read | 100 | 900 | **1/9.0** | 8.0 | 8.0 |" in text
    assert "| conclave | 58 | 2.5 |" in text


def test_growth_is_shown_if_it_was_measured() -> None:
    step = {"secrets": 1000, "read_p50_ms": 1.0, "write_p50_ms": 2.0, "resident_bytes": 6e7, "disk_bytes": 3e7}
    results = {"machine": MACHINE, "operations": [], "layers": []}

    assert "| 1,000 | 1.00 | 2.00 | 60 | 30 |" in page(results, {"machine": MACHINE, "growth": [step]})


def test_the_page_in_the_repository_is_the_one_of_its_results() -> None:
    growth = RESULTS / "growth.json"
    results = json.loads((RESULTS / "peer.json").read_text())

    assert PAGE.read_text() == page(results, json.loads(growth.read_text()) if growth.exists() else None)
