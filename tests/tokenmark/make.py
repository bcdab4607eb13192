"""Made things that the engine's tests share: a specification, a record, a small prepared data set."""

import hashlib
from pathlib import Path

import numpy as np

from tokenmark.data import prepared
from tokenmark.records import Environment, Picture, Record, Value
from tokenmark.spec import RunSpec


def digest(text: str) -> str:
    """64 hex digits that stand for `text`."""
    return hashlib.sha256(text.encode()).hexdigest()


def spec(**changes) -> RunSpec:
    """The specification of a reconstruction, with every field filled."""
    facts = {
        "suite": "made",
        "task": "reconstruction",
        "method": "jpeg",
        "variant": "q50",
        "settings": {},
        "tokens": None,
        "implementation": digest("implementation"),
        "weights": {"mini-features": digest("weights")},
        "data": {"digits-32/val": digest("data")},
        "protocol": "mini",
        "protocol_version": 1,
        "protocol_sha256": digest("protocol"),
        "measures": ("rfid", "psnr"),
        "timing": {},
        "samples": 500,
        "batch_size": 50,
        "precision": "float32",
        "seed": 0,
        "tokenmark": "0.1.0",
        "device": "cpu: Made, 1 threads",
        "site": "site-made",
    }
    return RunSpec(**{**facts, **changes})


def environment(**changes) -> Environment:
    """A machine that does not exist."""
    facts = {
        "commit": "0" * 40,
        "dirty": False,
        "lock": "bench.txt",
        "lock_sha256": digest("lock"),
        "python": "3.12.0",
        "platform": "Made-1.0",
        "device": "cpu",
        "device_name": "Made",
        "cores": 2,
        "threads": 1,
        "memory_bytes": 8 << 30,
        "driver": None,
        "cuda": None,
        "libraries": {"torch": "2.6.0"},
        "tf32": False,
        "attention_backends": ("cpu",),
    }
    return Environment(**{**facts, **changes})


RECONSTRUCTED = (
    Value(name="rfid", value=12.345678, n=500, se=0.456789),
    Value(name="psnr", value=27.5, n=500, se=0.1),
    Value(name="ssim", value=0.9321, n=500, se=0.001),
)

CLASSIFIED = (
    Value(name="top1", value=0.972, n=500, interval=(0.9535, 0.9833)),
    Value(name="top1_difference", value=-0.012, n=500, se=0.0055, interval=(-0.0228, -0.0012)),
    Value(name="top1_mcnemar_p", value=0.0703, n=500),
    Value(name="macs", value=12345678.0, n=1),
    Value(name="macs_ratio", value=0.5432, n=1),
    Value(name="tokens_left", value=23.0, n=1),
    Value(name="images_per_second", value=123456.7, n=20, interval=(120000.1, 130000.9)),
    Value(name="best_batch", value=64.0, n=2),
    Value(name="speedup_best", value=12.346, n=20, interval=(11.111, 13.333)),
    Value(name="speedup_eager", value=15.678, n=20, interval=(14.0, 16.0)),
    Value(name="latency_p50_ms", value=123.456, n=20),
    Value(name="latency_p99_ms", value=234.567, n=20),
)

GENERATED = (
    Value(name="gfid", value=34.56, n=500, se=1.234),
    Value(name="gfid_infinite", value=30.12, n=500),
    Value(name="class_accuracy", value=0.876, n=500, interval=(0.844, 0.902)),
)


def record(values=RECONSTRUCTED, pictures=None, details=None, environ=None, **changes) -> Record:
    """A sealed record; `pictures` are bytes by name, `changes` go to its specification."""
    made = spec(**changes)
    return Record(
        run=made.run,
        spec=made,
        values=tuple(values),
        details=details or {},
        environment=environ or environment(),
        started="2026-01-02T03:04:05+00:00",
        durations={"open": 0.5, "images": 2.0, "finish": 0.25},
        peak_memory_bytes=123456789,
        warnings=(),
        pictures={
            name: Picture(file=f"{made.run}.{name}.png", sha256=hashlib.sha256(data).hexdigest(), caption=name)
            for name, data in (pictures or {}).items()
        },
    ).sealed()


def classified(values=CLASSIFIED, **changes) -> Record:
    """A record of a reduced classifier."""
    facts = {
        "task": "classification",
        "method": "tome",
        "variant": None,
        "model": "vit-mini",
        "settings": {"r": 4},
        "measures": ("accuracy", "cost", "throughput"),
        "timing": {"batches": [1, 64]},
    }
    return record(values, **{**facts, **changes})


def generated(values=GENERATED, **changes) -> Record:
    """A record of a generator."""
    facts = {
        "task": "generation",
        "method": "titok-maskgit",
        "variant": "mini-16",
        "settings": {"preset": "mini"},
        "measures": ("gfid", "class-accuracy"),
        "details": {"parameters": 1_234_567},
    }
    return record(values, **{**facts, **changes})


def data_set(folder: Path, images: int = 12, side: int = 8, classes: int = 3) -> prepared.Manifest:
    """Write a small prepared data set of random pixels, the classes in turn."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    labels = np.arange(images) % classes
    return prepared.write(folder, pixels, labels, name="made", split="val", source="numpy", crop="none")
