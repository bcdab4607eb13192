"""What would run a claim: commands whose names exist, and what they need."""

from pathlib import Path

import pytest

from tests.tokenmark.claims.made import AXES, claim
from tokenmark.claims.commands import Commands

ROOT = Path(__file__).parents[3]
FREE = dict.fromkeys(AXES)


@pytest.fixture(scope="module")
def commands():
    return Commands.of_folder(ROOT / "suites")


def asked(commands, **changes):
    return commands.to_run(claim(**changes))


def test_a_reconstruction_is_run_by_the_suite_of_its_protocol(commands):
    subject = {"method": "titok", "variant": "l32"}
    command, needs = asked(commands, subject=subject, protocol="titok-val50k", data="imagenet-256/val", samples=50000)
    assert command == "nox -s tokenmark -- run reconstruction-256 --method titok --data PATH --weights hub"
    assert "ImageNet's validation set, the released weights of titok/l32" in needs


def test_under_another_protocol_a_job_is_asked_for(commands):
    subject = {"method": "vitok", "variant": "s-l-16"}
    command, needs = asked(commands, subject=subject, protocol="own evaluator", data="coco-2017/val")
    assert command is None
    assert "the data set coco-2017/val" in needs
    assert "which no hub has" in needs
    assert '{ task = "reconstruction", method = "vitok", variant = "s-l-16" }' in needs


def test_a_speed_names_the_sources_device(commands):
    facts = {"quantity": "images-per-second", "unit": "images/s", "value": "1550", **FREE}
    facts |= {"device": "V100", "precision": "float32", "batch": "unstated", "resolution": 224, "attention": "eager"}
    subject = {"method": "tome", "model": "deit_small_patch16_224", "settings": {"r": 13}}
    command, needs = asked(commands, subject=subject, **facts)
    assert command == ("nox -s bench-throughput -- --models deit_small_patch16_224 --methods tome --set tome.r=13")
    assert "V100 in the source" in needs
    tokenizer, _ = asked(commands, subject={"method": "titok", "variant": "s128"}, **facts)
    assert tokenizer == "nox -s bench-throughput -- --tokenizers titok/s128"


def test_a_generators_speed_and_quality_name_its_suites(commands):
    facts = {"quantity": "images-per-second", "unit": "images/s", "value": "17", **FREE}
    facts |= {"device": "A100", "precision": "bfloat16", "batch": 128, "resolution": 256, "attention": "unstated"}
    subject = {"method": "rar", "variant": "b", "preset": "rar-b-paper"}
    command, needs = asked(commands, subject=subject, **facts)
    assert command == "nox -s tokenmark -- run generator-throughput --method rar"
    assert needs == "a GPU (A100 in the source)"
    quality = {"quantity": "gfid", "unit": "", "value": "1.95", "protocol": "adm-train", "samples": 50000}
    command, needs = asked(commands, subject=subject, **quality)
    assert command == "nox -s tokenmark -- run generation-256 --method rar --data PATH --weights hub"
    assert needs == "VIRTUAL_imagenet256_labeled.npz, the released weights of rar/b, and a GPU"


def test_structure_needs_nothing_but_minutes(commands):
    facts = {"quantity": "parameters", "value": "641054735", **FREE, "resolution": 256}
    assert asked(commands, subject={"method": "titok", "variant": "l32"}, **facts) == (
        "nox -s structure -- --method titok",
        "minutes on any machine",
    )


def test_a_cost_that_depends_on_images_needs_them(commands):
    subject = {"method": "ats", "model": "deit_small_patch16_224.fb_in1k"}
    command, _ = asked(commands, quantity="macs", unit="G", value="2.9", subject=subject, **{**FREE, "resolution": 224})
    assert command is not None
    assert "run classification --method ats" in command


def test_weights_of_a_fine_tuned_reducer_are_named(commands):
    facts = {"quantity": "top1", "unit": "%", "value": "79.3", "protocol": "top1-crop875", "data": "imagenet-1k/val"}
    _, needs = asked(commands, subject={"method": "dynamicvit", "model": "deit_small_patch16_224"}, **facts)
    assert "fine-tuned weights" in needs


def test_an_unknown_method_is_said_with_the_nearest(commands):
    command, needs = asked(commands, subject={"method": "titokk", "variant": "l32"})
    assert command is None
    assert "did you mean titok" in needs
