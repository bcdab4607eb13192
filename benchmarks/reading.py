"""`nox -s bench-measures -- reading`: prepared images against decoding and cropping their files, in turns.

Makes its own JPEG files (500 x 375, as most of ImageNet) in a temporary folder, prepares them, and measures how many
images a second come from the array and from the files. Both ways end with the same uint8 pixels in memory, which is
checked. The files are in the system's cache in both cases: what is compared is work, not disks.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks import report
from tokenmark.data import prepared
from tokenmark.data.crops import CROPS
from tokenmark.data.decode import decode

LIBRARIES = ("numpy", "pillow")
WIDTH, HEIGHT, SIDE, BATCH = 500, 375, 256, 50
TEXT = """## Reading

`{command}` on {machine}.

Prepared images beside decoding and cropping their files: made JPEG files of 500 x 375 pixels and {kilobytes:.0f} kB,
cropped by ADM's rule to 256; one process, both from the system's cache. The array is to be at least 50 times as fast.

{table}
"""
Pixels = npt.NDArray[np.uint8]


def made_picture(seed: int) -> bytes:
    """A JPEG with structure at all scales, so that it is as hard to decode as a photograph (about 100 kB)."""
    rng = np.random.default_rng(seed)
    total = np.zeros((HEIGHT, WIDTH, 3))
    for scale in (4, 16, 64, 256):
        coarse = rng.integers(0, 256, (max(scale * HEIGHT // WIDTH, 2), scale, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) / 4
    out = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def decoded(files: Sequence[Path]) -> Pixels:
    """Images `(N, 256, 256, 3)` from files, as `tokenmark prepare` makes them."""
    return np.stack([CROPS["adm"].apply(decode(file.read_bytes())[0], SIDE) for file in files])


def rate(read: Callable[[int, int], Pixels], total: int) -> float:
    """Images a second over one pass in batches."""
    begun = time.perf_counter()
    for start in range(0, total, BATCH):
        read(start, min(start + BATCH, total))
    return total / (time.perf_counter() - begun)


def measure(folder: Path, pictures: int, rounds: int) -> list[tuple[float, float]]:
    """Make files and prepare them; images a second from the array and from the files, in each turn."""
    files = [folder / f"{place}.JPEG" for place in range(pictures)]
    for place, file in enumerate(files):
        file.write_bytes(made_picture(place))
    facts = {"name": "reading", "split": "val", "source": "made", "crop": f"adm-{SIDE}"}
    prepared.write(folder / "prepared", decoded(files), np.zeros(pictures, np.int64), **facts)
    images = prepared.load(folder / "prepared").images

    def from_array(start: int, stop: int) -> Pixels:
        return np.array(images[start:stop])

    def from_files(start: int, stop: int) -> Pixels:
        return decoded(files[start:stop])

    if not np.array_equal(from_array(0, BATCH), from_files(0, BATCH)):
        raise SystemExit("the two ways give other pixels: the comparison means nothing")
    return [(rate(from_array, pictures), rate(from_files, pictures)) for _ in range(rounds)]


def shown(turns: list[tuple[float, float]]) -> str:
    """The medians of both ways, and of the turns' own ratios with their range."""
    array, files = (statistics.median(column) for column in zip(*turns, strict=True))
    ratios = sorted(one / other for one, other in turns)
    head = ("", "tokenmark", "decoding", "times faster", "least and most")
    rates = (f"{rate:,.0f} images/s" for rate in (array, files))
    row = ("prepared array", *rates, f"{statistics.median(ratios):.0f}", f"{ratios[0]:.0f} to {ratios[-1]:.0f}")
    return report.table([head, row])


@click.command()
@click.option("--pictures", default=400, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Turns that both ways take.")
@click.option("--output", default=report.PAGE, show_default=True, type=click.Path(path_type=Path))
def main(pictures: int, rounds: int, output: Path) -> None:
    """Measure, print the table, and write it into docs/measured.md."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        table = shown(measure(place, pictures, rounds))
        kilobytes = statistics.mean(file.stat().st_size for file in place.glob("*.JPEG")) / 1e3
    machine = report.machine(torch.device("cpu"), LIBRARIES)
    text = TEXT.format(command=report.command("reading"), machine=machine, kilobytes=kilobytes, table=table)
    report.write_section("reading", text, output)
    click.echo(table)


if __name__ == "__main__":
    main()
