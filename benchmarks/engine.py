"""`nox -s bench-measures -- engine`: what the engine itself takes, of a run's time and of the machine's memory.

Both are of reconstruction runs as `tokenmark run` has them, checkpoints and record included. Time: TiTok-S at its
released size with random weights, and Inception of drawn ones. Memory: as many images and as wide features as a full
measurement has, but cheap stand-ins for tokenizer and Inception, and images of 16 px.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar
from unittest.mock import patch

import click
import numpy as np
import psutil
import torch
from rich.console import Console
from torch import Tensor

from benchmarks import reading, report
from recipes import drawn
from tokenmark import __version__, build, networks, protocols, provenance, registry, runner
from tokenmark.contracts import Tokenizer, TokenizerInfo, TokenizerMethod, Tokens
from tokenmark.data import prepared
from tokenmark.data.crops import CROPS, Pixels
from tokenmark.data.decode import decode
from tokenmark.display import Display
from tokenmark.extractors import Outputs
from tokenmark.files import sha256_of
from tokenmark.networks import Given, Network
from tokenmark.plan import Planned
from tokenmark.records import Record
from tokenmark.spec import RunSpec
from tokenmark.store import Results
from tokenmark.tasks.base import Context

LIBRARIES = ("torch", "numpy", "scipy", "torchmetrics", "torch-fidelity")
PROTOCOL = protocols.get("llamagen-val-adm")
"""Of ImageNet's, the one whose Inception is the cheapest (float32), so that the engine's share is the largest."""
MEASURES = ("rfid", "inception-score", "psnr", "ssim", "rate", "codebook")
"""All of `suites/reconstruction-256.toml` but LPIPS, whose weights are not here."""
VARIANT, SIDE = "s128", 256
"""The size of TiTok whose share is measured, and of its images."""
WIDTH, CLASSES, SMALL = 2048, 1008, 16
"""What the stand-in of Inception gives, and the side of the images that it sees."""
GIB = 1 << 30
TEXT = """## The engine itself

`{command}` on {machine}.

Where the time of a reconstruction run goes, from its first image to its record. Real: the runner with its checkpoints,
256 px images from a prepared data set, TiTok-S of its released size, Inception on both sides of rFID, and every measure
of `reconstruction-256` but LPIPS. Stood in for: images are made; weights of TiTok and Inception are random,
and half of each original is mixed into what TiTok decodes, which would be the same for all images. The engine's own is
to be less than 3 %. A distance of 50,000 images takes longer than one of so few: the last line of the
second table says how long, once a run.

{share}

Memory of a run of as many images as a full measurement has, with 2,048 features of every reconstruction and every
original, 1,008 class scores, and checkpoints. Real: the runner, the session and the measures. Stood in for: images are
random, of 16 px; the tokenizer makes them darker; Inception is a fixed random projection. The array of the prepared
images is mapped, so that with 256 px the system counts up to 9.8 GB more of it as the process's, as long as nobody else
wants that memory. The run's own is to be less than 2 GiB.

{memory}
"""

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Stopwatch:
    """Seconds spent in calls, the device's work included."""

    device: torch.device
    seconds: float = 0.0

    def timed(self, call: Callable[P, R]) -> Callable[P, R]:
        """The same call, whose time is added up."""

        def wrapped(*given: P.args, **named: P.kwargs) -> R:
            self._settle()
            begun = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self._settle()
                self.seconds += time.perf_counter() - begun

        return wrapped

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Watched:
    """A tokenizer whose calls are timed.

    Untrained, it gives the same picture for all images, which have no distance: half of each original is mixed in. That
    takes the engine's time, not the tokenizer's.
    """

    def __init__(self, tokenizer: Tokenizer, watch: Stopwatch) -> None:
        self.info = tokenizer.info
        self._encode, self._decode = watch.timed(tokenizer.encode), watch.timed(tokenizer.decode)
        self._images = torch.empty(0)

    def encode(self, images: Tensor, tokens: int | None = None, generator: torch.Generator | None = None) -> Tokens:
        """The tokenizer's own tokens."""
        self._images = images
        return self._encode(images, tokens, generator)

    def decode(self, tokens: Tokens) -> Tensor:
        """The tokenizer's own images, mixed with what was encoded last."""
        return (self._decode(tokens) + self._images) / 2.0


class Darker:
    """A tokenizer that costs next to nothing: the images a little darker, and one code of 256 for each."""

    def __init__(self, side: int) -> None:
        self.info = TokenizerInfo(side, 1, (256,), 8.0, variable_length=False, stochastic=False, parameters=0)
        self._images = torch.empty(0)

    def encode(self, images: Tensor, tokens: int | None = None, generator: torch.Generator | None = None) -> Tokens:  # noqa: ARG002
        """One code per image: its mean grey level."""
        self._images = images
        codes = (images.mean(dim=(1, 2, 3)) * 255.0).long()[:, None]
        ones = torch.ones(len(images), dtype=torch.int64, device=images.device)
        return Tokens(ones, 8.0 * ones.double(), codes=codes)

    def decode(self, tokens: Tokens) -> Tensor:  # noqa: ARG002
        """What was encoded last, darker."""
        return self._images * 0.95


@dataclass
class Projection:
    """A network that costs next to nothing: fixed random projections of pixels to as much as Inception gives."""

    side: int
    device: torch.device
    features: Tensor = field(init=False)
    logits: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        pixels = 3 * self.side**2
        self.features = torch.randn(pixels, WIDTH, generator=generator).to(self.device) / pixels**0.5
        self.logits = torch.randn(WIDTH, CLASSES, generator=generator).to(self.device) / WIDTH**0.5

    def __call__(self, images: Tensor) -> Outputs:
        """Features `(B, 2048)` and class scores `(B, 1008)` of images in [0, 1]."""
        seen = (images.flatten(1) @ self.features).relu()
        return Outputs(seen, logits=seen @ self.logits)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where runs take place, and how many images they are of."""

    folder: Path
    device: torch.device
    images: int
    batch: int

    def data_set(self, pixels: Pixels) -> str:
        """Write pixels under the name of the protocol's data; gives the hash of their manifest."""
        name, split = PROTOCOL.split("reconstruction")
        facts = {"name": name, "split": split, "source": "made", "crop": PROTOCOL.crop}
        return prepared.write(self.folder / name / split, pixels, np.arange(self.images) % 1000, **facts).sha256

    def run(self, pixels: Pixels, tokenizer: Tokenizer, network: Network) -> Record:
        """One reconstruction run as `tokenmark run` has it, with these in the place of what it would load."""
        spec = RunSpec(
            suite="engine",
            task="reconstruction",
            method="titok",
            variant=VARIANT,
            implementation=registry.implementation("titok"),
            data={"/".join(PROTOCOL.split("reconstruction")): self.data_set(pixels)},
            protocol=PROTOCOL.id,
            protocol_version=PROTOCOL.version,
            protocol_sha256=PROTOCOL.sha256,
            measures=MEASURES,
            samples=self.images,
            batch_size=self.batch,
            seed=PROTOCOL.seed,
            tokenmark=__version__,
            device=provenance.device_label(self.device),
            site="engine",
        )
        display = Display(Console(stderr=True))
        with (
            patch.object(build, "tokenizer", lambda *_: tokenizer),
            patch.object(networks, "load", lambda *_, **__: network),
            display.suite(f"{self.images:,} images of {pixels.shape[1]} px", 1),
        ):
            context = Context(self.device, self.folder)
            summary = runner.run_all([Planned(spec.title, spec)], Results(self.folder / "results"), context, display)
        for _, error in (*summary.failures, *summary.missing):
            raise error
        return summary.records[0]


def share(bench: Bench) -> list[tuple[str, ...]]:
    """Where the time of a run with full-size models goes: tokenizer, Inception, and all else."""
    torch.manual_seed(0)
    method = registry.get_as(TokenizerMethod, "titok")
    tokenizer = method.build(**registry.variant_of(method, VARIANT).config).to(bench.device).eval()
    weights = drawn.inception(bench.folder / "inception.pth")
    network = networks.load(PROTOCOL, bench.device, Given(weights, sha256_of(weights)))
    by_method, by_network = Stopwatch(bench.device), Stopwatch(bench.device)
    # noise would take many times longer to compress for the record's picture
    pictures = [decode(reading.made_picture(seed))[0] for seed in range(bench.images)]
    pixels = np.stack([CROPS["adm"].apply(picture, SIDE) for picture in pictures])
    record = bench.run(pixels, Watched(tokenizer, by_method), by_network.timed(network))
    total = record.durations["images"] + record.durations["finish"]
    own = total - by_method.seconds - by_network.seconds
    seconds = {"TiTok-S": by_method.seconds, "Inception": by_network.seconds, "the engine's own": own}
    rows = [(name, f"{spent:.2f} s", f"{100 * spent / total:.2f} %") for name, spent in seconds.items()]
    return [("", "time", "share"), *rows, ("all", f"{total:.2f} s", "100 %")]


def memory(bench: Bench) -> list[tuple[str, ...]]:
    """What a run of as many images as a full measurement has takes on top of the process with its models."""
    tokenizer, network = Darker(SMALL), Projection(SMALL, bench.device)
    pixels = np.random.default_rng(0).integers(0, 256, (bench.images, SMALL, SMALL, 3), dtype=np.uint8)
    before = psutil.Process().memory_info().rss if bench.device.type == "cpu" else 0
    record = bench.run(pixels, tokenizer, network)
    rows = {
        "with imports and models, before the run": f"{before / GIB:.2f} GiB",
        "at the highest point": f"{record.peak_memory_bytes / GIB:.2f} GiB",
        "**the run's own**": f"**{(record.peak_memory_bytes - before) / GIB:.2f} GiB**",
        "time of the images": f"{record.durations['images']:.1f} s",
        "time of the distance and all else": f"{record.durations['finish']:.1f} s",
    }
    return [("", ""), *rows.items()]


@click.command()
@click.option("--images", default=192, show_default=True, help="Of the run whose time is divided.")
@click.option("--batch", default=32, show_default=True)
@click.option("--many", default=50_000, show_default=True, help="Images of the run whose memory is measured.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--output", default=report.PAGE, show_default=True, type=click.Path(path_type=Path))
def main(images: int, batch: int, many: int, device: str, output: Path) -> None:
    """Run both, print the tables, and write them into docs/measured.md."""
    place = torch.device(device)
    tables = {}
    for name, part, n, size in (("memory", memory, many, 64), ("share", share, images, batch)):
        with tempfile.TemporaryDirectory() as folder:
            tables[name] = report.table(part(Bench(Path(folder), place, n, size)))
    text = TEXT.format(command=report.command("engine"), machine=report.machine(place, LIBRARIES), **tables)
    report.write_section("engine", text, output)
    click.echo(text)


if __name__ == "__main__":
    main()
