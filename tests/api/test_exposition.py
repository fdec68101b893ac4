"""Metrics as Prometheus and as JSON, and who gets them."""

from collections.abc import Callable
from typing import Any

import msgspec

from conclave.api.exposition import as_json, prometheus
from conclave.core.errors import permission_denied
from conclave.core.metrics import SAMPLES, Metrics, Summary

ASK = b"GET /v1/sys/metrics?format=prometheus HTTP/1.1\r\nHost: a\r\n\r\n"


def test_prometheus_gets_each_family_with_its_type() -> None:
    metrics = Metrics()
    metrics.unsealed.set(1)
    metrics.raft_apply.add(3)
    metrics.node_healthy.follow(lambda: {"a": 1, 'b"\\': 0})
    metrics.handle_request.observe(0.5)

    page = prometheus(metrics).decode()

    assert "# TYPE vault_core_unsealed gauge\nvault_core_unsealed 1\n" in page
    assert '# TYPE vault_autopilot_node_healthy gauge\nvault_autopilot_node_healthy{node_id="a"} 1\n' in page
    assert 'vault_autopilot_node_healthy{node_id="b\\"\\\\"} 0\n' in page
    assert "# TYPE vault_raft_apply counter\nvault_raft_apply 3\n" in page
    assert 'vault_core_handle_request{quantile="0.5"} 0.5\n' in page
    assert "vault_core_handle_request_sum 0.5\nvault_core_handle_request_count 1\n" in page


def test_json_has_the_shape_that_was_recorded() -> None:
    metrics = Metrics()
    metrics.node_healthy.follow(lambda: {"a": 1})
    page = msgspec.json.decode(as_json(metrics, "2026-11-24 00:24:00 +0000 UTC"))

    assert list(page) == ["Timestamp", "Gauges", "Points", "Counters", "Samples"]
    assert {"Name": "vault.core.active", "Value": 0.0, "Labels": {}} in page["Gauges"]
    assert {"Name": "vault.autopilot.node.healthy", "Value": 1.0, "Labels": {"node_id": "a"}} in page["Gauges"]


def test_quantiles_are_of_the_latest_samples() -> None:
    summary = Summary("x", "")
    for value in [1e9] * SAMPLES + [2.0] * SAMPLES:
        summary.observe(value)

    assert dict(summary.quantiles()) == {0.5: 2.0, 0.9: 2.0, 0.99: 2.0}


def test_a_gauge_may_follow_something() -> None:
    metrics = Metrics()
    metrics.active.follow(lambda: 1)

    assert metrics.active.value == 1


def test_metrics_are_given_to_whom_the_vault_allows_it(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> tuple[bytes, bytes]:
        async with served.connect() as client:
            client.send(ASK)
            allowed = await client.receive()
            served.vault.answer = lambda _: permission_denied()
            client.send(ASK)
            return allowed, await client.receive()

    allowed, refused = serve(scenario)

    assert b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n" in allowed
    assert b"vault_core_unsealed" in allowed
    assert refused.startswith(b"HTTP/1.1 403 ")


def test_a_listener_may_give_metrics_to_everybody(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        served.vault.answer = lambda _: permission_denied()
        async with served.connect() as client:
            client.send(ASK)
            return bytes(await client.receive())

    assert serve(scenario, has_open_metrics=True).startswith(b"HTTP/1.1 200 ")


def test_prometheus_that_is_not_configured_is_refused_in_the_recorded_words(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        async with served.connect() as client:
            client.send(ASK)
            return bytes(await client.receive())

    answer = serve(scenario, has_prometheus=False)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\nprometheus is not enabled")
