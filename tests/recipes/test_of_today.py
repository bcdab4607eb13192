"""What the repository says of itself is of today: documentation, weights and the records that come with it."""

import json
import re
from pathlib import Path

import pytest
import torch

from recipes import docs, findings, movement, reduction, samplers, zoo
from tests.long import takes_long
from tokenmark import backbones, build, plan, suites
from tokenmark.data import catalog
from tokenmark.store import Results
from tokenmark.tasks.base import Context
from tokenmark.tasks.structure import STRUCTURE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def own_records():
    return [record for record in Results(ROOT / "results").all() if record.spec.site == docs.SITE]


def test_weights_page():
    assert (ROOT / "docs/weights.md").read_text() == docs.weights_page(ROOT), "run `nox -s docs`"


@takes_long
def test_tokenizers_page():
    assert (ROOT / "docs/tokenizers.md").read_text() == zoo.page(ROOT), "run `nox -s docs`"


@takes_long
def test_reducers_page():
    assert (ROOT / "docs/reducers.md").read_text() == reduction.reducers_page(ROOT), "run `nox -s docs`"


@takes_long
def test_generators_page():
    assert (ROOT / "docs/generators.md").read_text() == samplers.page(ROOT), "run `nox -s docs`"


@takes_long
def test_backbones_page():
    assert (ROOT / "docs/backbones.md").read_text() == reduction.backbones_page(), "run `nox -s docs`"


def test_findings_page():
    assert (ROOT / "docs/findings.md").read_text() == findings.page(ROOT), "run `nox -s docs`"


def test_protocols_page():
    assert (ROOT / "docs/protocols.md").read_text() == docs.protocols_page(ROOT), "run `nox -s docs`"


def test_movement_was_measured_under_todays_protocols():
    found = json.loads((ROOT / docs.MOVEMENT).read_text())
    today = {each.id: each.sha256 for each in movement.measured()}
    assert {row["protocol"]: row["protocol_sha256"] for row in found["rows"]} == today, "run `nox -s movement`"
    assert found["environment"]["dirty"] is False


def test_readme_tables():
    assert (ROOT / "README.md").read_text() == docs.readme(ROOT), "run `nox -s docs`"


def test_weights_are_small():
    sizes = [path.stat().st_size for folder in docs.CARDS for path in (ROOT / folder).glob("*.safetensors")]
    assert len(sizes) == 11
    assert max(sizes) <= 2e6
    assert sum(sizes) <= 13e6


def test_the_classifier_reads_held_out_digits_and_what_titok_makes_of_them(tmp_path):
    """At least 95 % of the digits; and 16 tokens hold what makes a digit readable."""
    images, labels = catalog.load("digits-32", "val", tmp_path).batch(0, 500)
    cpu = torch.device("cpu")
    backbone = backbones.get("vit-mini")
    reader = backbones.Normalised(backbone, backbones.load("vit-mini", cpu)).eval()
    titok = build.tokenizer("titok", "mini-16", cpu)
    with torch.inference_mode():
        read, read_again = (reader(seen).argmax(1) == labels for seen in (images, titok.decode(titok.encode(images))))
    assert float(read.float().mean()) >= 0.95
    assert float(read_again.float().mean()) >= 0.95


@pytest.mark.parametrize("name", ["mini", "structure"])
def test_every_run_of_the_suite_has_a_record_of_todays_sources(name, own_records, tmp_path):
    """A method, weights file or protocol that changed is to be measured again: TOKENMARK_SITE=tokenmark."""
    suite = suites.load(ROOT / "suites" / f"{name}.toml")
    wanted = plan.plan(suite, name, Context(torch.device("cpu"), tmp_path), docs.SITE)
    measured = {record.spec.experiment for record in own_records if record.spec.suite == name}
    assert [item.spec.title for item in wanted if item.spec.experiment not in measured] == []
    assert len(measured) == len(wanted)


def test_counting_again_gives_what_the_records_say(own_records):
    """A record's specification does not hold the engine's own source: a few of each kind are counted anew."""
    counted = [record for record in own_records if record.spec.suite == "structure"]
    quick = [record for record in counted if record.durations["finish"] < 0.5]
    for record in quick[:: max(len(quick) // 12, 1)]:
        again = STRUCTURE.open(record.spec, Context(torch.device("cpu"), Path())).finish(lambda _phase: None)
        assert tuple(again.values) == record.values, record.spec.title


def test_records_come_from_a_clean_commit_and_a_pinned_environment(own_records):
    for record in own_records:
        environment = record.environment
        assert re.fullmatch("[0-9a-f]{40}", environment.commit or "")
        assert environment.dirty is False
        assert environment.lock == "bench.txt"


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
