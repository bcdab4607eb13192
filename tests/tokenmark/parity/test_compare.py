"""`tokenmark parity`: it finds what departs, names it, and says in one line what is wrong with a file."""

import json

import pytest

from tests.vector_case import VECTORS
from tokenmark import parity
from tokenmark.cli.main import status_of
from tokenmark.parity import rules

VECTOR = VECTORS / "maskgit-vq__tiny.json"
MANIFEST = VECTORS / "maskgit-vq__imagenet-f16-256.manifest.json"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """How MKL rounds is not left behind for the tests that follow."""
    monkeypatch.setenv("MKL_CBWR", "AUTO")


@pytest.fixture
def changed(tmp_path):
    """Writes a vector with a change, and gives its path."""

    def write(change, source=VECTOR):
        vector = json.loads(source.read_text())
        change(vector)
        path = tmp_path / "vector.json"
        path.write_text(json.dumps(vector))
        return path

    return write


def test_all_agree(capsys):
    assert status_of(["parity", str(VECTOR), str(MANIFEST)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "maskgit-vq/tiny: 168 keys and 19 outputs agree",
        "maskgit-vq/imagenet-f16-256: 168 keys of the checkpoint agree",
    ]


def test_the_first_output_that_departs_comes_first(changed, capsys):
    def change(vector):
        for name in ("reconstruction", "encoder_mid"):
            vector["outputs"][name]["values"][5] += 1e-3

    assert status_of(["parity", str(changed(change))]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("maskgit-vq/tiny: first to depart: encoder_mid: differs by")
    assert second.startswith("maskgit-vq/tiny: reconstruction: differs by")


def test_other_weights_are_seen_in_the_output(changed):
    path = changed(lambda vector: vector.update(kept={"encoder.conv_in.weight": None}))
    assert parity.compare(parity.load(path)).mismatches[0].startswith("encoder_conv_in: differs")


def test_given_values_and_scales_are_set(changed):
    """A weight given outright as what the rule makes, or scaled by one, changes nothing; scaled by two it does."""
    key = "quantize.embedding.weight"
    rule = rules.weight(key, (96, 48)).tolist()
    for change, agrees in (
        ({"kept": {key: rule}}, True),
        ({"scale": {key: 1.0}}, True),
        ({"scale": {key: 2.0}}, False),
    ):
        path = changed(lambda vector, change=change: vector.update(change))
        assert (parity.compare(parity.load(path)).mismatches == ()) == agrees


def test_keys_and_shapes_that_differ(changed, capsys):
    def change(vector):
        keys = vector["parameters"]
        keys["encoder.norm_out.gamma"] = keys.pop("encoder.norm_out.weight")
        keys["encoder.conv_out.bias"] = [5]

    assert status_of(["parity", str(changed(change, MANIFEST))]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "encoder.conv_out.bias: [256], expected [5]" in lines[0]
    assert "encoder.norm_out.gamma: missing" in lines[1]
    assert "encoder.norm_out.weight: no such key in the release" in lines[2]


def test_an_output_that_nobody_gives(changed):
    def change(vector):
        vector["outputs"]["something"] = vector["outputs"]["tokens"]

    (line,) = parity.compare(parity.load(changed(change))).mismatches
    assert line == "something: is not given by the method's parity file"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda vector: vector.update(system="maskgit-vqq"), "unknown system 'maskgit-vqq': did you mean maskgit-vq"),
        (lambda vector: vector.pop("system"), "system: Field required"),
        (lambda vector: vector.update(surprise=1), "surprise: Extra inputs"),
        (lambda vector: vector["config"].pop("z_channels"), "cannot be built: KeyError: 'z_channels'"),
        (lambda vector: vector["inputs"].clear(), "fails: KeyError: 'image'"),
    ],
)
def test_mistakes_in_a_vector_are_one_line_and_status_2(changed, capsys, change, words):
    assert status_of(["parity", str(changed(change))]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_files_that_are_no_vectors(tmp_path, capsys):
    text, missing = tmp_path / "notes.json", tmp_path / "none.json"
    text.write_text("{ no json")
    assert status_of(["parity", str(text), str(missing), str(MANIFEST)]) == 2
    captured = capsys.readouterr()
    assert "cannot be read as JSON" in captured.err
    assert "does not exist" in captured.err
    assert "168 keys of the checkpoint agree" in captured.out
