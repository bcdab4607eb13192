"""What one method does wrong harms no other: errors, too little memory, numbers that are none."""

import pytest

from tests.e2e import plugins
from tests.e2e.harness import JPEG, Place, write_suite

BROKEN = {
    "build-raises": (
        plugins.reducer("build-raises", build="raise RuntimeError('the idea is broken')"),
        "RuntimeError: the idea is broken",
    ),
    "forward-raises": (plugins.reducer("forward-raises", forward="raise KeyError('missing')"), "KeyError: 'missing'"),
    "gives-nan": (
        plugins.reducer("gives-nan", forward="return self.model(images) * math.nan"),
        "gives-nan/vit-mini gave class scores that are NaN or infinite",
    ),
    "says-nothing": (plugins.reducer("says-nothing", forward="assert False"), "AssertionError"),
    "two-lines": (plugins.reducer("two-lines", forward="raise ValueError('one\\ntwo')"), "ValueError: one two"),
}


@pytest.mark.parametrize("source", ["this is no python", "import not_installed_anywhere", "METHOD = 3"])
def test_method_that_cannot_be_imported_is_one_line(place: Place, source: str):
    place.path = (plugins.install(place.folder / "site", "stranger", {"odd": source}),)
    suite = write_suite(place.folder / "small.toml", plugins.job("odd"), JPEG)
    place.run(suite).mistake("odd", "stranger.odd")


def test_failing_methods_do_not_stop_the_others(place: Place):
    site = plugins.install(place.folder / "site", "stranger", {name: source for name, (source, _) in BROKEN.items()})
    place.path = (site,)
    suite = write_suite(place.folder / "small.toml", *map(plugins.job, BROKEN), JPEG)
    output = place.run(suite).failed(*(f"failed {name}" for name in BROKEN), *(text for _, text in BROKEN.values()))
    assert f"1 measured, 0 already there, {len(BROKEN)} failed." in output
    assert set(place.records()) == {"jpeg"}
    assert "1 already there" in place.run(suite).failed("build-raises")


def test_images_that_are_no_numbers_are_an_error(place: Place):
    source = plugins.tokenizer("rows", decode="images = images.clone(); images[-1, 0, 0, 0] = float('nan')")
    place.path = (plugins.install(place.folder / "site", "stranger", {"rows": source}),)
    line = '{ task = "reconstruction", method = "rows", variant = "r16", measures = ["psnr"] }'
    place.run(write_suite(place.folder / "small.toml", line)).failed("rows/r16 gave images that are NaN or infinite")
    assert place.records() == {}


MEMORY = "raise torch.OutOfMemoryError('CUDA out of memory')"


def test_out_of_memory_halves_the_batch_and_says_so(place: Place):
    methods = {
        "hungry": plugins.reducer("hungry", forward=f"if len(images) > 6: {MEMORY}"),
        "frugal": plugins.reducer("frugal"),
        "insatiable": plugins.reducer("insatiable", forward=MEMORY),
    }
    place.path = (plugins.install(place.folder / "site", "stranger", methods),)
    suite = write_suite(
        place.folder / "small.toml",
        plugins.job("hungry"),
        plugins.job("frugal").replace(" }", ", batch_size = 5 }"),
        plugins.job("insatiable"),
    )
    place.run(suite).failed("out of memory even with one image at a time", "failed insatiable")
    records = place.records()
    assert records["hungry"]["warnings"] == [f"out of memory: batch halved to {size}" for size in (10, 5)]
    assert records["frugal"]["warnings"] == []
    assert records["hungry"]["values"] == records["frugal"]["values"]
    assert {value["n"] for value in records["hungry"]["values"]} == {500, 1}


@pytest.mark.parametrize("call", [2, 24], ids=["first-batch", "twelfth-batch"])
def test_memory_that_ends_between_two_measures_counts_no_image_twice(place: Place, finished: Place, call: int):
    suite = write_suite(place.folder / "small.toml", JPEG)
    act = "import torch\ndef act(): raise torch.OutOfMemoryError('CUDA out of memory')\n"
    # PSNR is the odd call, SSIM the even one
    place.run(
        suite, before=f"{act}faults.at_call('tokenmark.measures.pixels', 'PixelMeasure.update', {call}, act)"
    ).well()
    record, expected = place.records()["jpeg"], finished.records()["jpeg"]
    assert record["warnings"] == ["out of memory: batch halved to 10"]
    for value, other in zip(record["values"], expected["values"], strict=True):
        assert (value["name"], value["n"]) == (other["name"], 500)
        assert value["value"] == pytest.approx(other["value"], rel=1e-4)
