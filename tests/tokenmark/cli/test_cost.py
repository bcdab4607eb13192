"""`tokenmark cost`: what a person reads, and how mistakes end."""

import pytest

from tokenmark.cli.main import status_of


@pytest.fixture
def call(capsys):
    def called(*arguments):
        status = status_of(["cost", *arguments])
        seen = capsys.readouterr()
        return status, " ".join(seen.out.split()), seen.err

    return called


def test_a_setting(call):
    status, out, _ = call("deit_small_patch16_224", "--method", "tome", "--set", "r=13")
    assert status == 0
    assert "tome on deit_small_patch16_224: r = 13" in out
    assert "0 197 184 93.4" in out
    assert "11 54 41 20.8" in out
    assert "model 2.703 G MACs of 4.599 G unreduced (58.8 %)" in out


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (("--macs", "3.0G"), "r = 11"),
        (("--macs", "60%"), "r = 13"),
        (("--keep", "0.25"), "r = 13"),
        (("--like", "topk:keep_rate=0.7"), "r = 12"),
    ],
)
def test_a_budget(call, arguments, setting):
    status, out, _ = call("deit_small_patch16_224", "--method", "tome", *arguments)
    assert status == 0
    assert f"tome on deit_small_patch16_224: {setting} " in out


def test_open_clip_and_the_small_model_and_nothing_reduced(call):
    assert "17.563 G unreduced" in call("clip:ViT-B-16", "--method", "tome")[1]
    assert "none on vit-mini: no settings" in call("vit-mini")[1]


def test_what_depends_on_the_image_is_said(call):
    assert "these are the most" in call("deit_small_patch16_224", "--method", "ats")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("deit_smal_patch16_224",), "did you mean deit_small_patch16_224"),
        (("deit_small_patch16_224", "--method", "tomee"), "did you mean tome"),
        (("deit_small_patch16_224", "--method", "tome", "--set", "q=3"), "unknown setting of tome 'q'"),
        (("deit_small_patch16_224", "--method", "tome", "--macs", "3.0T"), "write MACs as 3.0G"),
        (("deit_small_patch16_224", "--method", "tome", "--macs", "3G", "--keep", "0.5"), "one budget at a time"),
        (("deit_small_patch16_224", "--method", "tome", "--like", "topk"), "write METHOD:SETTING=VALUE"),
        (("deit_small_patch16_224", "--method", "tome-3stage", "--set", "keep_rate=0.25"), "would leave [98, 61, 52]"),
        (("convnext_tiny", "--method", "tome"), "ConvNeXt is not served"),
    ],
)
def test_mistakes_are_one_line_and_status_2(call, arguments, message):
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
