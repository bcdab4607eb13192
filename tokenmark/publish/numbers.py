"""Checks of a record's values: that they are what its measures give, and can be."""

import fnmatch
import math

from tokenmark.measures.accuracy import wilson
from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record, Value

GIVES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rfid": (("rfid",), ()),
    "gfid": (("gfid",), ("gfid_infinite",)),
    "sfid": (("sfid",), ()),
    "inception-score": (("inception_score",), ()),
    "precision-recall": (("precision", "recall"), ()),
    "class-accuracy": (("class_accuracy",), ()),
    "psnr": (("psnr",), ()),
    "ssim": (("ssim",), ()),
    "lpips": (("lpips",), ()),
    "rate": (("bits_per_pixel", "tokens_per_image"), ()),
    "codebook": (("codebook_use", "codebook_entropy", "codebook_perplexity"), ()),
    "accuracy": (("top1", "top5"), ("top?_difference", "top?_mcnemar_p")),
    "cost": (("macs_counted", "parameters", "macs"), ("macs_method", "macs_ratio", "tokens_left")),
    "throughput": (
        ("*images_per_second", "best_batch"),
        ("*latency_p*_ms", "speedup_*", "call_memory_bytes", "joules_per_image", "parameters"),
    ),
}
"""By measure: values that it always gives, and those that it may give beside them."""
STRUCTURE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "size": (
        ("parameters", "state_entries"),
        ("image_size", "tokens", "bits_per_*", "compression_ratio", "code*"),
    ),
    "cost": ((), ("steps", "macs", "macs_*", "*_macs", "tokens", "tokens_left", "latent_*", "image_size")),
}
"""The same, of the task that counts what methods are made of."""
OF_TASK: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "structure": STRUCTURE,
    "generation": {**GIVES, "cost": (("steps", "macs"), ("macs_ratio",))},
    "sampling": {
        "throughput": (
            ("images_per_second", "best_batch", "steps", "macs", "parameters"),
            ("compiled_images_per_second", "latency_p*_ms", "speedup_*", "call_memory_bytes", "joules_per_image"),
        )
    },
}
"""The tasks of which measures give something else than elsewhere."""
NOT_OF_SAMPLES = ("cost", "size", "throughput")
"""Measures whose numbers are not of the run's images."""

RANGES: dict[str, tuple[float, float]] = {
    "?fid": (-1e-3, math.inf),
    "inception_score": (1.0 - 1e-6, math.inf),
    "psnr": (0.0, 400.0),
    "ssim": (-1.0, 1.0),
    "lpips": (0.0, 4.0),
    "codebook_entropy": (0.0, 64.0),
    "codebook_perplexity": (1.0, math.inf),
    "bits_per_pixel": (0.0, 1024.0),
    "tokens_per_image": (0.0, math.inf),
    "*_difference": (-1.0, 1.0),
    "macs_method": (0.0, math.inf),
    "parameters": (0.0, math.inf),
    **dict.fromkeys(("precision", "recall", "class_accuracy", "top?", "codebook_use", "*_mcnemar_p"), (0.0, 1.0)),
    **dict.fromkeys(("macs", "macs_counted", "macs_ratio", "tokens_left"), (1e-9, math.inf)),
    **dict.fromkeys(("*images_per_second", "*latency_p*_ms", "speedup_*"), (1e-9, math.inf)),
    **dict.fromkeys(("best_batch", "call_memory_bytes", "joules_per_image", "steps"), (0.0, math.inf)),
}
"""What a value can be at all."""
SHARES = ("top?", "class_accuracy")
"""Right answers by images, with Wilson's interval."""
ROUNDING = 1e-9


def measures(_: Subject, record: Record, __: Known) -> str | None:
    """It has every value that its measures give, each once and of all its images, and no others."""
    given = OF_TASK.get(record.spec.task, GIVES)
    names = [value.name for value in record.values]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        return f"value {twice} stands there twice"
    unknown = next((measure for measure in record.spec.measures if measure not in given), None)
    if unknown or not names:
        return f"it measures {unknown or 'nothing'}, which no task here does"
    for measure in record.spec.measures:
        lacking = next((each for each in given[measure][0] if not fnmatch.filter(names, each)), None)
        if lacking:
            return f"measure {measure} gives {lacking}, which the record lacks: restore the record that the run wrote"
    for value in record.values:
        by = {name for name in record.spec.measures if any(_like(value.name, each) for each in sum(given[name], ()))}
        problem = _miscounted(value, by, record)
        if problem:
            return problem
    return None


def _miscounted(value: Value, by: set[str], record: Record) -> str | None:
    """What is wrong with a value that these measures give, and with the number of images that it is of."""
    if not by:
        return f"value {value.name} is given by none of its measures ({', '.join(record.spec.measures)})"
    if value.n < 1:
        return f"value {value.name} is of {value.n} images"
    if value.n != record.spec.samples and not by & set(NOT_OF_SAMPLES) and value.name != "recall":
        return f"value {value.name} is of {value.n} images, the run of {record.spec.samples}"
    return None


def values(_: Subject, record: Record, __: Known) -> str | None:
    """Its values lie where they can lie, within their own intervals, and shares of images are whole images."""
    return next((problem for value in record.values if (problem := _impossible(value))), None)


def _impossible(value: Value) -> str | None:
    low, high = next((each for name, each in RANGES.items() if _like(value.name, name)), (-math.inf, math.inf))
    if not low <= value.value <= high:
        return f"{value.name} cannot be {value.value:.6g}: it lies between {low:g} and {high:g}"
    if value.se is not None and value.se < 0:
        return f"the standard error of {value.name} is negative"
    if value.interval is not None:
        lowest, highest = value.interval
        if not lowest - ROUNDING <= value.value <= highest + ROUNDING:
            return f"{value.name} is {value.value:.6g}, outside of its own interval [{lowest:.6g}, {highest:.6g}]"
    return _no_share(value) if any(_like(value.name, each) for each in SHARES) else None


def _no_share(value: Value) -> str | None:
    right = round(value.value * value.n)
    if abs(right / value.n - value.value) > ROUNDING:
        return f"{value.name} is {value.value:.6g}, which no number of {value.n} images is"
    wanted = wilson(right, value.n)
    if value.interval is None or max(abs(a - b) for a, b in zip(wanted, value.interval, strict=True)) > 1e-6:
        return f"the interval of {value.name} is not Wilson's, [{wanted[0]:.4f}, {wanted[1]:.4f}]"
    return None


def _like(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)
