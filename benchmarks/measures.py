"""`nox -s bench-measures -- measures`: the measures' speed beside torch-fidelity's and scipy's own use."""

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from benchmarks import report
from tokenmark import resize
from tokenmark.measures import frechet
from tokenmark.measures.moments import Gaussian, Moments
from tokenmark.measures.throughput import Timed, Timing, measure

LIBRARIES = ("torch", "numpy", "scipy", "torch-fidelity")
SIDES = (64, 256, 512)
BATCH, RESIZED = 32, 299
GOALS = """
To be: at least 3 times as fast as torch-fidelity and 10 as scipy's sqrtm from statistics, 5 from features, 5 in
the resize. From features a processor cannot reach it: both sides spend most of their time on the same product in
float64, of D x N by N x D. On a GPU the sums run on the device.
"""
NETWORK_BATCH = 256
"""Features per update, as a feature network gives them."""

Contenders = dict[str, Callable[[Tensor], Tensor]]


def drawn(samples: int, dimensions: int, seed: int) -> Tensor:
    """Float32 features with correlations, as positive as Inception's."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(0)) / dimensions**0.5
    return (torch.randn(samples, dimensions, generator=generator) @ mixing + 0.5).relu()


def by_torch_fidelity(sample: Gaussian, reference: Gaussian) -> float:
    """torch-fidelity's distance from statistics."""
    sides = [{"mu": side.mean, "sigma": side.covariance} for side in (sample, reference)]
    return float(fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"])


def by_sqrtm(sample: Gaussian, reference: Gaussian) -> float:
    """As pytorch-fid, clean-fid and ADM's evaluator use scipy: the root of the product itself."""
    root = scipy.linalg.sqrtm(sample.covariance @ reference.covariance).real
    gap = sample.mean - reference.mean
    return float(gap @ gap + np.trace(sample.covariance) + np.trace(reference.covariance) - 2.0 * np.trace(root))


def number(value: float) -> Tensor:
    """A distance as contenders give it."""
    return torch.tensor(value, dtype=torch.float64)


def distances(sample: Gaussian, reference: Gaussian) -> Contenders:
    """From statistics to the distance; the reference's factor is at hand, as it is in use."""
    assert reference.factor is not None
    return {
        "tokenmark": lambda _: number(frechet.between(sample, reference)),
        "torch-fidelity": lambda _: number(by_torch_fidelity(sample, reference)),
        "scipy's sqrtm": lambda _: number(by_sqrtm(sample, reference)),
    }


def statistics(features: Tensor, reference: Gaussian, device: torch.device) -> Contenders:
    """From features to the distance: ours as the network gives them, theirs from the array that it keeps them in."""
    kept = features.cpu()

    def ours(given: Tensor) -> Tensor:
        moments = Moments(torch.from_numpy(reference.mean).to(device))
        for batch in given.split(NETWORK_BATCH):
            moments.update(batch)
        return number(frechet.between(moments.gaussian(), reference))

    def theirs(_: Tensor) -> Tensor:
        found = fid_features_to_statistics(kept)
        return number(by_torch_fidelity(Gaussian(found["mu"].astype(np.float64), found["sigma"], len(kept)), reference))

    return {"tokenmark": ours, "torch-fidelity": theirs}


def resizes() -> Contenders:
    """TensorFlow 1's bilinear resize of grey levels."""
    size = (RESIZED, RESIZED)
    return {
        "tokenmark": lambda images: resize.tf1(images, RESIZED),
        "torch-fidelity": lambda images: interpolate_bilinear_2d_like_tensorflow1x(images, size, align_corners=False),
    }


def agreed(contenders: Contenders, given: Tensor) -> str:
    """The largest difference from what the first gives."""
    first, *others = (call(given).double().cpu() for call in contenders.values())
    return f"{max((other - first).abs().max().item() for other in others):.1e}"


def rows(name: str, contenders: Contenders, given: Tensor, timing: Timing) -> Iterator[tuple[str, ...]]:
    """A row per rival: its median time, ours, and how many times faster ours is."""
    difference = agreed(contenders, given)
    timed = measure(contenders, given, timing)
    ours, *rivals = contenders
    for rival in rivals:
        ratio, (low, high) = timed.speedup(ours, rival)
        times = (milliseconds(timed, ours), milliseconds(timed, rival))
        yield (f"{name}, beside {rival}", *times, f"{ratio:.1f}", f"{low:.1f} to {high:.1f}", difference)
        click.echo(f"{name}: {ratio:.1f} times faster than {rival} ({low:.1f} to {high:.1f})", err=True)


def milliseconds(timed: Timed, name: str) -> str:
    """A median time."""
    return f"{timed.quantile_ms(name, 0.5):.1f} ms"


def measured(samples: int, dimensions: int, rounds: int, device: torch.device) -> list[tuple[str, ...]]:
    """All rows of the table, the head first."""
    timing = Timing(min_seconds=0.0, min_rounds=rounds, warm_seconds=0.0, max_warm_seconds=0.0)
    features = drawn(samples, dimensions, 1).to(device)
    reference = Gaussian.of(drawn(max(samples, 2 * dimensions), dimensions, 2).numpy())
    sample = Gaussian.of(features.cpu().numpy())
    found: list[tuple[str, ...]] = [("", "tokenmark", "rival", "times faster", "95 %", "largest difference")]
    found += rows(f"distance from statistics, D = {dimensions}", distances(sample, reference), features, timing)
    name = f"statistics and distance, {samples:,} x {dimensions}"
    found += rows(name, statistics(features, reference, device), features, timing)
    for side in SIDES:
        images = (torch.rand(BATCH, 3, side, side, generator=torch.Generator().manual_seed(side)) * 255).to(device)
        found += rows(f"TF1 resize, {BATCH} images, {side} to {RESIZED}", resizes(), images, timing)
    return found


@click.command()
@click.option("--samples", default=50_000, show_default=True)
@click.option("--dimensions", default=2048, show_default=True)
@click.option("--rounds", default=7, show_default=True, help="Turns that every contender takes.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--output", default=report.PAGE, show_default=True, type=click.Path(path_type=Path))
def main(samples: int, dimensions: int, rounds: int, device: str, output: Path) -> None:
    """Measure, print the table, and write it into docs/measured.md."""
    place = torch.device(device)
    shown = report.table(measured(samples, dimensions, rounds, place))
    where = f"`{report.command('measures')}` on {report.machine(place, LIBRARIES)}."
    text = f"## Measures\n\n{where}\n{GOALS}\n{shown}\n"
    report.write_section("measures", text, output)
    click.echo(shown)


if __name__ == "__main__":
    main()
