"""Reading prepared images against decoding and cropping their files, in one process, in turns.

    python benchmarks/reading.py [--pictures 400] [--rounds 5] [--json FILE]

Makes its own JPEG files (500 x 375, as most of ImageNet) in a temporary folder, prepares them, and measures how many
images a second come from the array and from the files. The goal is at least 50 times as many. Both ways end with the
same uint8 pixels in memory, which is checked. The files are in the system's cache in both cases: what is compared is
work, not disks.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tokenmark.data import prepared
from tokenmark.data.crops import CROPS
from tokenmark.data.decode import decode

GOAL = 50.0
WIDTH, HEIGHT, SIDE, BATCH = 500, 375, 256, 50
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


def decoded(files: list[Path]) -> Pixels:
    """Images `(N, 256, 256, 3)` from files, as `tokenmark prepare` makes them."""
    return np.stack([CROPS["adm"].apply(decode(file.read_bytes())[0], SIDE) for file in files])


def rate(read: Callable[[int, int], Pixels], total: int) -> float:
    """Images a second over one pass in batches."""
    begun = time.perf_counter()
    for start in range(0, total, BATCH):
        read(start, min(start + BATCH, total))
    return total / (time.perf_counter() - begun)


def measure(folder: Path, pictures: int, rounds: int) -> dict[str, object]:
    """Make files, prepare them, and time both ways in turns."""
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
    turns = [(rate(from_array, pictures), rate(from_files, pictures)) for _ in range(rounds)]
    array, file_ = (statistics.median(column) for column in zip(*turns, strict=True))
    ratios = sorted(one / other for one, other in turns)
    return {
        "pictures": pictures,
        "rounds": rounds,
        "mean_file_bytes": round(statistics.mean(file.stat().st_size for file in files)),
        "prepared_images_per_second": round(array, 1),
        "decoded_images_per_second": round(file_, 1),
        "ratio": round(statistics.median(ratios), 1),
        "ratio_range": [round(ratios[0], 1), round(ratios[-1], 1)],
        "goal": GOAL,
        "reached": statistics.median(ratios) >= GOAL,
    }


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result to this file, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = json.dumps(measure(Path(folder), given.pictures, given.rounds), indent=1)
    print(found)
    if given.json is not None:
        given.json.write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
