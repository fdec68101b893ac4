"""Metrics as text: for Prometheus (text format 0.0.4) and as the JSON that Vault's `sys/metrics` answers. Pure.

Source: Prometheus' "Exposition formats"; the JSON's shape was recorded from a real server.
"""

import math
from typing import Any, Final

import msgspec

from conclave.core.metrics import Counter, Gauge, LabelledGauge, Metric, Metrics, Summary, prometheus_name

PROMETHEUS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def prometheus(metrics: Metrics) -> bytes:
    """Return the page that a Prometheus server scrapes."""
    return "".join(_family(metric) for metric in metrics).encode()


def _family(metric: Metric) -> str:
    name = prometheus_name(metric.name)
    head = f"# HELP {name} {metric.help}\n# TYPE {name} {kind_of(metric)}\n"
    if isinstance(metric, LabelledGauge):
        return head + "".join(
            f'{name}{{{metric.label}="{_escaped(label)}"}} {_number(value)}\n' for label, value in metric.values.items()
        )
    if not isinstance(metric, Summary):
        return f"{head}{name} {_number(metric.value)}\n"
    quantiles = "".join(f'{name}{{quantile="{quantile}"}} {_number(value)}\n' for quantile, value in metric.quantiles())
    return f"{head}{quantiles}{name}_sum {_number(metric.total)}\n{name}_count {metric.count}\n"


def kind_of(metric: Metric) -> str:
    """Return what Prometheus calls such a metric."""
    return "gauge" if isinstance(metric, LabelledGauge) else type(metric).__name__.lower()


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def as_json(metrics: Metrics, timestamp: str) -> bytes:
    """Return the metrics as JSON.

    Args:
        metrics: the table.
        timestamp: "2026-11-24 00:24:00 +0000 UTC".
    """
    page: dict[str, Any] = {
        "Timestamp": timestamp,
        "Gauges": [gauge for metric in metrics for gauge in _gauges(metric)],
        "Points": [],
        "Counters": [_counter(metric) for metric in metrics if isinstance(metric, Counter)],
        "Samples": [_sample(metric) for metric in metrics if isinstance(metric, Summary)],
    }
    return msgspec.json.encode(page) + b"\n"


def _gauges(metric: Metric) -> list[dict[str, Any]]:
    values: list[tuple[dict[str, str], float]] = []
    if isinstance(metric, Gauge):
        values = [({}, metric.value)]
    elif isinstance(metric, LabelledGauge):
        values = [({metric.label: label}, value) for label, value in metric.values.items()]
    return [{"Name": f"vault.{metric.name}", "Value": float(value), "Labels": labels} for labels, value in values]


def _counter(metric: Counter) -> dict[str, Any]:
    return {"Name": f"vault.{metric.name}", "Count": metric.value, "Sum": float(metric.value), "Labels": {}}


def _sample(metric: Summary) -> dict[str, Any]:
    latest = metric.latest()
    mean = math.fsum(latest) / len(latest) if latest else 0.0
    deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in latest) / len(latest)) if latest else 0.0
    return {
        "Name": f"vault.{metric.name}",
        "Count": metric.count,
        "Sum": metric.total,
        "Min": latest[0] if latest else 0.0,
        "Max": latest[-1] if latest else 0.0,
        "Mean": mean,
        "Stddev": deviation,
        "Labels": {},
    }
