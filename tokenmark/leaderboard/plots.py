"""The page's plots, as SVG with real text. Points are told apart by their labels and marks, not by colour alone."""

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from tokenmark.records import Record, Value
from tokenmark.tracks import Group, Track, name_cell

INK = "#1f2933"
MARKS = "osD^vPX*<>"


def of(track: Track, group: Group) -> list[str]:
    """The plots of one group of a track, as SVG elements."""
    drawers: dict[str, tuple[Callable[[Group], str], ...]] = {
        "reconstruction": (_quality_tokens, _rate_distortion),
        "throughput": (_accuracy_speed,),
    }
    return [draw(group) for draw in drawers.get(track.id, ()) if len(group.records) > 1]


def _quality_tokens(group: Group) -> str:
    """Draw rFID against the number of tokens, of methods whose tokens are codes (a file's are its bytes)."""
    tokenizers = [record for record in group.records if record.value("codebook_use") is not None]
    x = "tokens_per_image"
    return _quality(tokenizers, x, "Tokens per image", group.heading) if len(tokenizers) > 1 else ""


def _rate_distortion(group: Group) -> str:
    """Draw rFID against bits per pixel, where every method can stand."""
    return _quality(group.records, "bits_per_pixel", "Bits per pixel", group.heading)


def _quality(records: Sequence[Record], against: str, title: str, heading: str) -> str:
    """Draw rFID against another value, both on logarithmic axes; one line per method."""
    lines: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        lines[record.spec.method].append(record)
    figure, axes = _figure(title, "rFID (lower is better)")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for place, (name, line) in enumerate(sorted(lines.items())):
        points = sorted(
            ((_number(r, against), _number(r, "rfid"), _se(r, "rfid"), r) for r in line), key=lambda p: p[:2]
        )
        x, y, error, shown = zip(*points, strict=True)
        axes.errorbar(x, y, yerror_of(y, error), marker=MARKS[place % len(MARKS)], capsize=2, label=name, linewidth=1.2)
        for at, up, record in zip(x, y, shown, strict=True):
            if record.spec.tokens is not None:
                axes.annotate(str(record.spec.tokens), (at, up), (4, 4), textcoords="offset points", fontsize=8)
    _legend(figure)
    return _svg(figure, f"rFID against {title.lower()}; numbers beside points are token counts; {heading}")


def yerror_of(values: Sequence[float], errors: Sequence[float]) -> list[list[float]]:
    """Error bars of 1.96 standard errors that stay above zero, for a logarithmic axis."""
    below = [min(1.96 * error, 0.9 * value) for value, error in zip(values, errors, strict=True)]
    return [below, [1.96 * error for error in errors]]


def _accuracy_speed(group: Group) -> str:
    """Draw top-1 against throughput in turns with the unreduced model, with both intervals."""
    figure, axes = _figure("Throughput, relative to the fastest unreduced model (more is better)", "Top-1 %")
    drawn = 0
    for record in group.records:
        top1, rate = record.value("top1"), record.value("speedup_best")
        if top1 is None or rate is None:
            continue
        axes.errorbar(
            [rate.value],
            [top1.value * 100],
            xerr=_interval_bars(rate),
            yerr=[[bar[0] * 100] for bar in _interval_bars(top1)],
            marker=MARKS[drawn % len(MARKS)],
            capsize=2,
            linewidth=1,
            label=name_cell(record).text,
        )
        drawn += 1
    _legend(figure)
    return _svg(figure, f"Top-1 accuracy against throughput; {group.heading}") if drawn > 1 else ""


def _legend(figure: Any) -> None:
    """Names under the plot, where they cover no point."""
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)


def _interval_bars(value: Value) -> list[list[float]]:
    low, high = value.interval or (value.value, value.value)
    return [[max(value.value - low, 0.0)], [max(high - value.value, 0.0)]]


def _number(record: Record, name: str) -> float:
    value = record.value(name)
    return value.value if value is not None else float("nan")


def _se(record: Record, name: str) -> float:
    value = record.value(name)
    return (value.se or 0.0) if value is not None else 0.0


def _figure(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415  a second to import, and not for every command

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    return figure, axes


def _svg(figure: Any, description: str) -> str:
    """The figure as an SVG element with a description for those who do not see it."""
    import matplotlib as mpl  # noqa: PLC0415
    from markupsafe import escape  # noqa: PLC0415

    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tokenmark", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
