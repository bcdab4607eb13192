"""The claims that come with the repository: readable, of names that exist, many, and judged from its own records."""

import re
from pathlib import Path

import pytest

from tokenmark import backbones, build, protocols, registry
from tokenmark.claims import files, report, verdict
from tokenmark.claims.commands import Commands
from tokenmark.contracts import ReducerMethod
from tokenmark.store import Results

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def filed():
    return files.load(ROOT / "results/claims")


@pytest.fixture(scope="module")
def judged(filed):
    return verdict.judge(filed, Results(ROOT / "results").all(), Commands.of_folder(ROOT / "suites"))


def test_there_are_many(filed):
    assert len(filed) >= 400
    assert len({each.file for each in filed}) >= 40


def test_what_they_are_of_exists(filed):
    subjects = {
        subject.model_dump_json(): (each.name, subject)
        for each in filed
        for subject in (each.claim.subject, each.claim.baseline)
        if subject is not None and subject.method is not None
    }
    for name, subject in subjects.values():
        method = registry.get(subject.method)
        if subject.variant is not None:
            assert subject.variant in method.variants, name
        if subject.preset is not None:
            assert subject.preset in method.presets, name
        if subject.settings:
            build.settings_of(registry.get_as(ReducerMethod, subject.method), subject.settings)


def test_models_exist(filed):
    for model in {each.claim.subject.model for each in filed} - {None}:
        drawn = f"{model}/random" if model.startswith("clip:") and "/" not in model else model
        backbones.get(drawn if model.startswith("clip:") or "." in model or model == "vit-mini" else f"{model}.random")


def test_protocols_that_look_like_ours_are_ours(filed):
    named = {
        each.claim.protocol for each in filed if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", each.claim.protocol or "")
    }
    assert named <= set(protocols.PROTOCOLS)


def test_they_speak_of_the_source_and_of_nothing_here(filed):
    for path in (ROOT / "results/claims").glob("*.toml"):
        assert not re.search(r"/tmp|/work|shared/|facts", path.read_text()), path.name
    assert all(each.paper.url.startswith("https://") or each.paper.url == "unstated" for each in filed)


def test_many_have_a_verdict_from_the_records_here(judged):
    found = report.counts(judged)
    assert sum(found.values()) - found["not run"] >= 120
    assert found["reproduced"] >= 100


@pytest.mark.parametrize(
    ("name", "wanted", "measured"),
    [
        ("titok/l32-parameters", "reproduced", 641_054_735),
        ("titok/l32-keys", "reproduced", 692),
        ("llamagen-vq/vq-16-codebook-size", "reproduced", 16384),
        ("diffrate/vit-t-deit-0-6-macs", "not reproduced", 0.654714),
        ("davit/tiny-parameters", "not reproduced", 28.360168),
        ("evit/kr70-macs", "reproduced", 3.029),
    ],
)
def test_verdicts_that_were_worked_out_by_hand(judged, name, wanted, measured):
    (found,) = (each for each in judged if each.filed.name == name)
    assert found.verdict == wanted
    assert found.measured == pytest.approx(measured, rel=2e-4)


def test_every_reason_is_in_words(judged):
    assert all(each.reason and "\n" not in each.reason for each in judged)
