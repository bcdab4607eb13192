"""Checks of a record's times: that they agree with each other, with the sweep behind them, and with the work done."""

from typing import Any, cast

from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record

ROUNDED = 2e-3
"""Relative, between a value and the sweep's, which is written in few digits."""
SLACK = 3.0
"""How many times faster than its multiply-accumulates allow a reduced model may be: attention's softmax and memory are
not counted in them."""
QUANTILES = ("p50", "p90", "p99")
CLOCK = 0.01
"""Seconds by which rounded durations may be off."""
METHOD, BOTH = "method", "both"
Point = dict[str, Any]


def timings(_: Subject, record: Record, __: Known) -> str | None:
    """Its durations are positive; latencies rise, rates are the sweep's, and no speed-up is beyond what was saved."""
    if not record.durations or any(seconds < 0 for seconds in record.durations.values()):
        return "its durations are missing or negative"
    if sum(record.durations.values()) <= 0 or record.peak_memory_bytes <= 0:
        return "it took no time or no memory"
    if "throughput" not in record.spec.measures:
        return None
    points = record.details.get("throughput")
    if not isinstance(points, list) or not points or not all(_whole(point) for point in points):
        return "the sweep over batch sizes behind its throughput is missing from its details"
    sweep = cast("list[Point]", points)
    return _too_quick(record, sweep) or _unordered(sweep) or _not_of_sweep(record, sweep) or _too_fast(record)


def _whole(point: Any) -> bool:
    tables = ("images_per_second", *(f"{q}_ms" for q in QUANTILES))
    return (
        isinstance(point, dict)
        and all(isinstance(point.get(key), int) and point[key] > 0 for key in ("batch", "rounds"))
        and all(isinstance(point.get(key), dict) and point[key] for key in tables)
        and all(isinstance(number, int | float) and number > 0 for key in tables for number in point[key].values())
        and len({frozenset(point[key]) for key in tables}) == 1
    )


def _too_quick(record: Record, sweep: list[Point]) -> str | None:
    """Half of all rounds take at least the median: that must fit into the time that the run took."""
    fewest = record.spec.timing.get("min_rounds")
    if isinstance(fewest, int) and any(point["rounds"] < fewest for point in sweep):
        return f"its sweep has fewer rounds than the {fewest} that were asked for"
    least = sum(point["rounds"] / 2 * ms / 1e3 for point in sweep for ms in point["p50_ms"].values())
    took = sum(record.durations.values())
    if least > took + CLOCK:
        return f"its rounds alone take {least:.1f} s, the whole run {took:.1f} s"
    return None


def _unordered(sweep: list[Point]) -> str | None:
    for point in sweep:
        for name in point["p50_ms"]:
            p50, p90, p99 = (point[f"{q}_ms"][name] for q in QUANTILES)
            if not p50 <= p90 <= p99:
                return f"batch {point['batch']}, {name}: p50 {p50}, p90 {p90} and p99 {p99} ms do not rise"
            rate = 1e3 * point["batch"] / p50
            if abs(rate - point["images_per_second"][name]) > ROUNDED * rate + 0.01:
                return (
                    f"batch {point['batch']}, {name}: {point['images_per_second'][name]} images/s, but its median time"
                    f" gives {rate:.2f}"
                )
    return None


def _not_of_sweep(record: Record, sweep: list[Point]) -> str | None:
    ours = METHOD if record.spec.task == "classification" else BOTH
    if any(ours not in point["p50_ms"] for point in sweep):
        return f"its sweep does not name '{ours}'"
    best = max(sweep, key=lambda point: point["images_per_second"][ours])
    for name, wanted in _expected(sweep, best, ours).items():
        value = record.value(name)
        if value is not None and abs(value.value - wanted) > ROUNDED * wanted + 0.01 * name.endswith("per_second"):
            return f"{name} is {value.value:.6g}, but the sweep in its details gives {wanted:.6g}"
    return None


def _expected(sweep: list[Point], best: Point, ours: str) -> dict[str, float]:
    """What the sweep says of each value."""
    rates: dict[str, float] = best["images_per_second"]
    found = {"best_batch": float(best["batch"])}
    if ours == BOTH:
        found |= {f"{name.replace(', ', '_')}_images_per_second": rate for name, rate in rates.items()}
    else:
        speedups = {f"speedup_{name}": rates[ours] / rate for name, rate in rates.items() if name != ours}
        quick = [ratio for name, ratio in speedups.items() if name != "speedup_eager"]
        found |= {"images_per_second": rates[ours], **speedups, **({"speedup_best": min(quick)} if quick else {})}
    for point in (point for point in sweep if point["batch"] == 1):
        for name in point["p50_ms"]:
            before = "" if name == METHOD else f"{name}_"
            found |= {f"{before}latency_{q}_ms": point[f"{q}_ms"][name] for q in QUANTILES}
    return found


def _too_fast(record: Record) -> str | None:
    speedup, ratio = record.value("speedup_best"), record.value("macs_ratio")
    if speedup is None or ratio is None:
        return None
    most = SLACK / ratio.value
    if speedup.value > most:
        return f"speed-up {speedup.value:.3g} with {ratio.value:.0%} of the MACs: more than {most:.3g} is not believed"
    return None
