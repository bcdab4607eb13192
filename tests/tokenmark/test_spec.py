"""Specifications: one name per experiment, on every machine, and another for whatever can change a number."""

import json
import random
import subprocess
import sys

import pydantic
import pytest

from tests.tokenmark import make
from tokenmark.spec import RunSpec

CHANGED = {
    "suite": "other",
    "task": "generation",
    "method": "webp",
    "variant": None,
    "model": "vit-mini",
    "settings": {"r": 4},
    "budget": "60%",
    "tokens": 3,
    "implementation": make.digest("other"),
    "weights": {"mini-features": make.digest("other")},
    "data": {"digits-32/val": make.digest("other")},
    "protocol": "other",
    "protocol_version": 2,
    "protocol_sha256": make.digest("other"),
    "measures": ("psnr", "rfid"),
    "timing": {"batches": [1]},
    "samples": 499,
    "batch_size": 49,
    "precision": "bfloat16",
    "seed": 1,
    "tokenmark": "0.2.0",
    "device": "cuda: Made",
    "site": "site-other",
}


def test_every_field_is_tried():
    assert CHANGED.keys() == RunSpec.model_fields.keys()


@pytest.mark.parametrize("field", RunSpec.model_fields)
def test_every_field_changes_the_name(field):
    one, other = make.spec(), make.spec(**{field: CHANGED[field]})
    assert other.run != one.run
    assert (other.experiment == one.experiment) == (field in {"device", "site"})


def test_no_two_changes_give_one_name():
    names = {make.spec(**{field: value}).run for field, value in CHANGED.items()}
    assert len(names) == len(CHANGED)


def test_the_order_of_input_does_not_matter():
    facts = make.spec(
        settings={"b": 1, "a": [1, {"y": 2, "x": 3}]}, weights={"b": make.digest("b"), "a": make.digest("a")}
    ).model_dump(mode="json")
    expected = RunSpec(**facts).run
    shuffled = list(facts.items())
    random.Random(0).shuffle(shuffled)
    turned = {key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in shuffled}
    assert RunSpec(**turned).run == expected
    assert RunSpec.model_validate_json(json.dumps(turned)).run == expected


def test_the_name_is_the_same_in_another_process():
    made = make.spec(settings={"keep_rate": 0.7, "stages": [1, 2]}, timing={"min_seconds": 0.1})
    program = "import sys; from tokenmark.spec import RunSpec; s = RunSpec.model_validate_json(sys.stdin.read())\n"
    program += "print(s.run, s.experiment)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=made.model_dump_json(),
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [made.run, made.experiment]


def test_frozen_and_strict():
    made = make.spec()
    with pytest.raises(pydantic.ValidationError):
        made.seed = 3
    with pytest.raises(pydantic.ValidationError):
        make.spec(colour="red")
    for field, value in {"implementation": "abc", "task": "other", "precision": "float16", "data": {"x": "y"}}.items():
        with pytest.raises(pydantic.ValidationError):
            make.spec(**{field: value})


def test_title():
    assert make.spec().title == "jpeg/q50"
    assert make.spec(variant=None).title == "jpeg"
    made = make.spec(
        method="tome", variant=None, model="vit-mini", settings={"per_block": [4, 2], "proportional": False}, tokens=8
    )
    assert made.title == "tome/vit-mini per_block=4-2 proportional=False tokens=8"


def test_a_question_is_the_same_wherever_and_of_whatever_it_was_asked():
    here = make.spec()
    made = {"implementation": make.digest("other"), "weights": {}, "data": {}, "tokenmark": "9"}
    assert here.question == make.spec(device="cuda: Other", site="elsewhere", **made).question
    assert here.request != make.spec(site="elsewhere").request
    assert here.question != make.spec(seed=1).question
