"""Plots of results as SVG: rates beside the peer's, and how figures change with size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

RATIOS: Final = "ratios.svg"
_INCH_A_BAR: Final = 0.28
_WIDTH_INCHES: Final = 8.0


def by_dimension(points: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the points of each dimension, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        found.setdefault(point["dimension"], []).append(point)
    return found


def plot_name(dimension: str) -> str:
    """Return the name of a dimension's file."""
    return dimension.replace(" ", "-") + ".svg"


def draw(folder: Path, operations: Sequence[dict[str, Any]], growth: Sequence[dict[str, Any]]) -> None:
    """Write all plots into a folder; the same results give the same bytes."""
    import matplotlib as mpl  # noqa: PLC0415  # only who draws needs it: scripts/bench installs it

    mpl.use("svg")
    mpl.rcParams.update(
        {
            "svg.hashsalt": "conclave",
            "svg.fonttype": "none",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    folder.mkdir(exist_ok=True)
    _ratios(folder / RATIOS, operations)
    for dimension, points in by_dimension(growth).items():
        _lines(folder / plot_name(dimension), dimension, points)


def _ratios(file: Path, operations: Sequence[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415  # only who draws needs it

    theirs = {each["name"]: each["rate"] for each in operations if each["program"] != "conclave"}
    bars = [
        (each["name"], each["rate"] / theirs[each["name"]])
        for each in reversed(operations)
        if each["program"] == "conclave" and each["name"] in theirs
    ]
    figure = Figure(figsize=(_WIDTH_INCHES, 1 + _INCH_A_BAR * len(bars)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh([name for name, _ in bars], [ratio for _, ratio in bars], color="#3b6ea5")
    axes.bar_label(drawn, [f"{ratio:.1f}" for _, ratio in bars], padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("requests a second, as a multiple of OpenBao's")
    figure.savefig(file, metadata={"Date": None})


def _lines(file: Path, dimension: str, points: Sequence[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415  # only who draws needs it

    names = list(points[0]["figures"])
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(_WIDTH_INCHES, 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):
        axes.plot([each["size"] for each in points], [each["figures"][name] for each in points], "o-", color="#3b6ea5")
        axes.set_title(name)
        axes.set_xlabel(dimension)
        axes.set_ylim(bottom=0)
        if points[-1]["size"] >= 20 * points[0]["size"]:
            axes.set_xscale("log")
    for axes in list(panels)[len(names) :]:
        axes.set_axis_off()
    figure.savefig(file, metadata={"Date": None})
