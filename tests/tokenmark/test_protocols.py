"""Protocols: every choice is live in the name of what was measured, and shown with what it means."""

import json

import pydantic
import pytest

from tokenmark import protocols
from tokenmark.cli.main import status_of
from tokenmark.errors import SuiteError, UnknownNameError
from tokenmark.protocols.base import MEANINGS, Protocol

ALL = list(protocols.PROTOCOLS.values())
NAMED = {
    *("titok-val50k", "llamagen-val-adm", "adm-train", "torch-fidelity", "clean-fid", "pytorch-fid"),
    *("pytorch-fid-float", "torchmetrics-1.7", "torchmetrics-1.8", "mini"),
}
OTHER = {
    "data": "other",
    "reconstruction_reference": "other",
    "generation_reference": "other",
    "samples": 7,
    "crop": "adm-256",
    "uint8_rule": "truncate",
    "port": "pytorch-fid",
    "feature_resize": "antialiased",
    "feature_dtype": "float64",
    "tf32": True,
    "order": "shuffled",
    "class_sampling": "random",
    "classes": 7,
    "inception_splits": "ten",
    "seed": 9,
    "model_precision": "as-given",
    "stochastic_encoder": "as-given",
    "version": 2,
}


def test_the_fields_protocols_are_there_under_their_names():
    assert set(protocols.PROTOCOLS) >= NAMED
    assert all(name == protocol.id for name, protocol in protocols.PROTOCOLS.items())


def test_no_two_measure_alike():
    assert len({protocol.sha256 for protocol in ALL}) == len(ALL)


@pytest.mark.parametrize("axis", OTHER)
def test_a_choice_changes_the_hash(axis):
    mini = protocols.get("mini")
    assert mini.but(**{axis: OTHER[axis]}).sha256 != mini.sha256


@pytest.mark.parametrize("words", ["title", "comparable_with", "differs"])
def test_words_do_not(words):
    mini = protocols.get("mini")
    assert mini.but(**{words: "other words"}).sha256 == mini.sha256


def test_every_field_is_an_axis_or_words():
    words = {"id", "title", "comparable_with", "used_by", "differs"}
    assert set(Protocol.model_fields) == set(OTHER) | words


@pytest.mark.parametrize("protocol", ALL, ids=lambda protocol: protocol.id)
def test_every_choice_has_a_meaning_and_is_shown(protocol, capsys):
    for axis, meanings in MEANINGS.items():
        assert str(getattr(protocol, axis)) in meanings
    assert status_of(["protocols", protocol.id]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    squeezed = "".join(shown.split())
    for axis, value, meaning in protocol.axes():
        assert axis in squeezed
        for word in (value + " " + meaning).split():
            assert word[:8] in squeezed


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(pydantic.ValidationError):
        protocols.get("mini").but(uint8_rule="floor")


def test_what_releases_use_differs_where_they_differ():
    """Facts: reference crop, rounding and number type of TiTok and LlamaGen; the resize of torchmetrics 1.8."""
    titok, llamagen = protocols.get("titok-val50k"), protocols.get("llamagen-val-adm")
    assert (titok.crop, titok.uint8_rule, titok.feature_dtype) == ("bicubic-256", "round", "float64")
    assert (llamagen.crop, llamagen.uint8_rule, llamagen.feature_dtype) == ("adm-256", "half-up", "float32")
    before, after = protocols.get("torchmetrics-1.7"), protocols.get("torchmetrics-1.8")
    assert (before.feature_resize, after.feature_resize) == ("tf1", "antialiased")
    assert after.but(id=before.id, feature_resize="tf1").sha256 == before.sha256


def test_data_of_a_task():
    mini = protocols.get("mini")
    assert mini.split("reconstruction") == mini.split("classification") == ("digits-32", "val")
    assert mini.split("generation") == ("digits-32", "train")
    with pytest.raises(SuiteError, match="clean-fid has no data of its own for reconstruction"):
        protocols.get("clean-fid").split("reconstruction")
    with pytest.raises(SuiteError, match="titok-val50k has no data of its own for generation"):
        protocols.get("titok-val50k").split("generation")


def test_an_unknown_protocol_suggests(capsys):
    with pytest.raises(UnknownNameError, match="did you mean titok-val50k"):
        protocols.get("titok-val")
    assert status_of(["protocols", "titok-val"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_json(capsys):
    assert status_of(["protocols", "mini", "--json"]) == 0
    assert Protocol.model_validate_json(capsys.readouterr().out) == protocols.get("mini")
    assert status_of(["protocols", "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == list(protocols.PROTOCOLS)
