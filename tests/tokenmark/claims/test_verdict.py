"""Verdicts, each by arithmetic that is done here by hand."""

import pytest

from tests.tokenmark import make
from tests.tokenmark.claims.made import filed
from tokenmark.claims.commands import Commands
from tokenmark.claims.verdict import judge
from tokenmark.records import Value

EMPTY = Commands()
DEIT = {"method": "tome", "model": "deit_small_patch16_224", "settings": {"r": 13}}
NONE = {"method": "none", "model": "deit_small_patch16_224"}
SPEED = {"device": "V100", "precision": "float32", "batch": "unstated", "resolution": 224, "attention": "eager"}
FREE = {"protocol": None, "data": None, "samples": None, "selection": None, "precision": None}


def verdict(*records, **changes):
    (found,) = judge([filed(**changes)], records or [make.record()], EMPTY)
    return found


def structure(value, name="macs", **changes):
    facts = {"suite": "structure", "task": "structure", "protocol": "structure", "variant": None, "samples": 0}
    facts |= {"method": "tome", "model": "deit_small_patch16_224.random", "settings": {"r": 13}, "data": {}}
    return make.record([Value(name=name, value=value, n=1)], **{**facts, **changes})


def cost(**changes):
    facts = {"quantity": "macs", "unit": "G", "subject": DEIT, "resolution": 224, **FREE}
    return {**facts, **changes}


@pytest.mark.parametrize(
    ("measured", "printed", "wanted"),
    [
        (2.703e9, "2.7", "reproduced"),
        (2.7499e9, "2.7", "reproduced"),
        (2.7501e9, "2.7", "not reproduced"),
        (2.6499e9, "2.7", "not reproduced"),
        (2.703e9, "2.70", "reproduced"),
        (2.7051e9, "2.70", "not reproduced"),
    ],
)
def test_a_cost_is_right_to_the_printed_digit(measured, printed, wanted):
    assert verdict(structure(measured), **cost(value=printed)).verdict == wanted


def test_a_cost_may_be_printed_with_or_without_the_methods_own():
    both = make.record(
        [Value(name="macs", value=11.064e9, n=1), Value(name="macs_total", value=11.476e9, n=1)],
        **structure(1.0).spec.model_dump(exclude={"suite"}),
    )
    assert verdict(both, **cost(value="11.1")).verdict == "reproduced"
    with_own = verdict(both, **cost(value="11.5"))
    assert with_own.verdict == "reproduced"
    assert "with the method's own" in with_own.reason
    assert verdict(both, **cost(value="11.3")).verdict == "not reproduced"


def test_parameters_are_counted_in_the_printed_unit():
    made = structure(83_674_639, "parameters")
    assert verdict(made, **cost(quantity="parameters", value="83.7", unit="M")).verdict == "reproduced"
    assert verdict(made, **cost(quantity="parameters", value="83674639", unit="")).verdict == "reproduced"
    assert verdict(made, **cost(quantity="parameters", value="83674640", unit="")).verdict == "not reproduced"


@pytest.mark.parametrize(
    ("unit", "printed", "wanted"),
    [
        ("% less", "41", "reproduced"),  # 1 - 2.703 / 4.599 = 41.2 %
        ("% less", "42", "not reproduced"),
        ("x less", "1.7", "reproduced"),  # 4.599 / 2.703 = 1.701
        ("x", "0.59", "reproduced"),
        ("%", "58.8", "reproduced"),
    ],
)
def test_a_ratio_to_the_baseline(unit, printed, wanted):
    base = structure(4.599e9, method="none", settings={})
    found = verdict(
        structure(2.703e9), base, **cost(kind="ratio", unit=unit, value=printed, baseline=NONE, baseline_name="DeiT-S")
    )
    assert found.verdict == wanted
    assert len(found.records) == 2


def test_a_ratio_without_its_baseline_was_not_run():
    found = verdict(structure(2.7e9), **cost(kind="ratio", unit="x less", value="1.7", baseline=NONE))
    assert found.verdict == "not run"


@pytest.mark.parametrize(
    ("bound", "value", "upper", "measured", "wanted"),
    [
        ("at-least", "2.0", None, 3e9, "reproduced"),
        ("at-least", "2.0", None, 1.9e9, "not reproduced"),
        ("at-most", "2.0", None, 1.9e9, "reproduced"),
        ("at-most", "2.0", None, 2.1e9, "not reproduced"),
        ("range", "1.0", "2.0", 1.5e9, "reproduced"),
        ("range", "1.0", "2.0", 2.06e9, "not reproduced"),
        ("about", "2.0", None, 2.09e9, "reproduced"),
        ("about", "2.0", None, 2.11e9, "not reproduced"),
    ],
)
def test_bounds(bound, value, upper, measured, wanted):
    assert verdict(structure(measured), **cost(bound=bound, value=value, upper=upper)).verdict == wanted


@pytest.mark.parametrize(
    ("printed", "wanted"),
    [("12.35", "reproduced"), ("12.3", "reproduced"), ("12.2", "not reproduced"), ("12.5", "better")],
)
def test_a_lower_rfid_is_better_and_its_sampling_error_excuses_nothing(printed, wanted):
    assert verdict(value=printed).verdict == wanted  # 12.345678, with a standard error of 0.457


def test_a_sampled_measure_may_be_off_by_its_error():
    sampled = make.record(make.GENERATED, task="generation", method="titok-maskgit", variant="mini-16")
    facts = {"quantity": "gfid", "subject": {"method": "titok-maskgit", "variant": "mini-16"}}
    assert verdict(sampled, value="36.9", **facts).verdict == "reproduced"  # 34.56 + 1.96 * 1.234 = 36.98
    assert verdict(sampled, value="37.1", **facts).verdict == "better"
    assert verdict(sampled, value="32.0", **facts).verdict == "not reproduced"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"protocol": "titok-val50k"}, "protocol: 'titok-val50k' claimed, mini measured"),
        ({"samples": 50000}, "samples: 50,000 claimed, 500 measured"),
        ({"data": "imagenet-256/val"}, "data: imagenet-256/val claimed, digits-32/val measured"),
        ({"precision": "bf16"}, "precision: bfloat16 claimed, float32 measured"),
        ({"selection": "minimum over 3 seeds"}, "selection: minimum over 3 seeds claimed"),
    ],
)
def test_other_circumstances_are_named_and_nothing_is_judged(changes, names):
    found = verdict(**changes)
    assert found.verdict == "protocol differs"
    assert names in found.reason
    assert found.measured == pytest.approx(12.345678)


def test_silence_on_a_decisive_axis_excuses_a_difference_and_spoils_no_agreement():
    assert verdict(protocol="unstated").verdict == "reproduced"
    off = verdict(protocol="unstated", value="2.2")
    assert off.verdict == "protocol differs"
    assert "protocol: the source does not say" in off.reason
    assert verdict(precision="unstated", value="2.2").verdict == "not reproduced"


def test_of_several_records_the_one_that_is_most_alike_counts():
    full = make.record([Value(name="rfid", value=2.21, n=50)], protocol="titok-val50k", samples=50000, suite="other")
    found = verdict(make.record(), full, protocol="titok-val50k", samples=50000, data="unstated", value="2.21")
    assert (found.verdict, found.measured) == ("reproduced", 2.21)


def test_the_newest_of_equal_records_counts():
    old = make.record()
    new = make.record([Value(name="rfid", value=3.0, n=500)], implementation=make.digest("newer")).model_copy(
        update={"started": "2026-02-02T03:04:05+00:00"}
    )
    assert verdict(old, new).measured == 3.0


@pytest.mark.parametrize(
    "subject",
    [
        {"method": "jpeg", "variant": "q10"},
        {"method": "webp", "variant": "q50"},
        {"method": "jpeg", "variant": "q50", "tokens": 8},
        {"method": "jpeg", "variant": "q50", "settings": {"keep_rate": 0.5}},
    ],
)
def test_another_method_size_length_or_setting_is_not_run(subject):
    found = verdict(subject=subject)
    assert found.verdict == "not run"
    assert found.needs


def test_weights_matter_to_accuracy_and_not_to_cost():
    values = [Value(name="top1", value=0.798, n=50000)]
    drawn = structure(0.0).spec.model_dump(exclude={"suite", "task"})
    record = make.record(values, **{**drawn, "task": "classification", "method": "none", "settings": {}})
    facts = {"quantity": "top1", "unit": "%", "value": "79.8", "subject": NONE, "protocol": "unstated"}
    facts |= {"data": "unstated", "samples": "unstated"}
    assert verdict(record, **facts).verdict == "not run"
    trained = make.record(
        values,
        **{
            **drawn,
            "task": "classification",
            "method": "none",
            "settings": {},
            "model": "deit_small_patch16_224.fb_in1k",
        },
    )
    assert verdict(trained, **facts).verdict == "reproduced"


def test_what_cannot_be_compared_says_why():
    found = verdict(incomparable="a score of another kind")
    assert (found.verdict, found.reason) == ("not run", "cannot be compared: a score of another kind")


def test_what_is_not_implemented_says_so():
    assert "not implemented" in verdict(subject={}).reason


def timed(**changes):
    facts = {"task": "classification", "method": "tome", "model": "deit_small_patch16_224.random", "variant": None}
    return make.record(make.CLASSIFIED, **{**facts, "settings": {"r": 13}, "protocol": "throughput", **changes})


def faster(**changes):
    facts = {"quantity": "images-per-second", "kind": "ratio", "unit": "x", "value": "15.7", "subject": DEIT}
    return {**facts, "baseline": NONE, **FREE, **SPEED, **changes}


def test_a_speed_up_is_the_recorded_ratio_to_the_named_baseline_on_a_device_that_is_told():
    found = verdict(timed(), **faster())
    assert found.verdict == "reproduced"  # speedup_eager 15.678
    assert "another device: cpu: Made, 1 threads; the source's is V100" in found.reason
    assert found.interval == (14.0, 16.0)
    assert "another device" not in verdict(timed(device="cuda: Tesla V100"), **faster()).reason


def test_a_rate_of_another_device_is_no_comparison():
    rate = faster(kind="absolute", unit="images/s", value="930", baseline=None)
    found = verdict(timed(), **rate)
    assert found.verdict == "protocol differs"
    assert "device: V100 claimed" in found.reason


def test_the_most_over_unnamed_settings_is_not_refuted_by_one_setting():
    found = verdict(timed(), **faster(bound="at-most", value="20"))
    assert found.verdict == "protocol differs"
    assert verdict(timed(), **faster(bound="at-most", value="15.7")).verdict == "reproduced"


def test_a_difference_is_the_paired_one_of_the_methods_own_record():
    facts = {"quantity": "top1", "kind": "difference", "unit": "points", "subject": DEIT, "baseline": NONE}
    record = timed(protocol="mini", model="deit_small_patch16_224.fb_in1k")
    assert verdict(record, **facts, value="-1.2").verdict == "reproduced"
    assert verdict(record, **facts, value="-0.2").verdict == "not reproduced"
    assert verdict(record, **facts, value="-2.0").verdict == "better"


def test_the_cheapest_setting_that_is_as_accurate():
    def at(r, top1, macs):
        values = [Value(name="top1", value=top1, n=500, interval=(top1 - 0.01, top1 + 0.01))]
        values.append(Value(name="macs", value=macs, n=1))
        method, settings = ("tome", {"r": r}) if r else ("none", {})
        model = "deit_small_patch16_224.fb_in1k"
        return timed(model=model, method=method, settings=settings).spec.model_dump(exclude={"suite"}), values

    records = [
        make.record(values, **spec)
        for spec, values in (at(0, 0.80, 4.6e9), at(8, 0.799, 3.4e9), at(13, 0.795, 2.7e9), at(16, 0.75, 2.3e9))
    ]
    facts = cost(kind="iso-accuracy", unit="% less", value="41", baseline=NONE, subject={**DEIT, "settings": {}})
    assert verdict(*records, **facts).verdict == "reproduced"  # 1 - 2.7 / 4.6 = 41.3 %
