"""`tokenmark throughput` from the command to the record, on timm's smallest vision transformer."""

import re
import shlex
from pathlib import Path

import click
import pytest

from tokenmark import jobs, speedsuite
from tokenmark.cli import throughput_
from tokenmark.cli.main import status_of
from tokenmark.store import Results

QUICK = ("--device", "cpu", "--batches", "1,2", "--min-seconds", "0.001", "--min-rounds", "3")


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Run the verb in an empty folder; gives status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = status_of(["throughput", *arguments, *QUICK])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path):
    return Results(tmp_path / "results")


def test_records_say_that_weights_are_random_and_stay(call, folder):
    arguments = ("--models", "test_vit", "--methods", "tome", "--set", "tome.r=4", "--precision", "bfloat16")
    status, out, err = call(*arguments)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    assert "Throughput — protocol throughput v1 · model test_vit.random · random images · bfloat16" in out
    assert "tome r=4" in out
    (record,) = folder.all()
    assert folder.path(record.spec).parent == folder.records / "throughput" / "tome"
    assert (record.spec.model, record.spec.weights, record.spec.data) == ("test_vit.random", {}, {})
    assert record.details["weights"] == "random, drawn from seed 0; no accuracy was measured"
    assert record.details["path"] == {
        "precision": "bfloat16",
        "tf32_matmul": False,
        "tf32_convolution": False,
        "audit_tolerance": {"most": 0.05, "each": 0.2},
    }
    assert [point["batch"] for point in record.details["throughput"]] == [1, 2]
    assert record.value("top1") is None
    assert record.value("macs_ratio").value < 1
    found = {value.name for value in record.values}
    assert {"images_per_second", "latency_p50_ms", "latency_p99_ms", "speedup_best", "speedup_eager"} <= found
    status, out, _ = call(*arguments)
    assert status == 0
    assert "already measured" in out
    assert folder.all() == [record]


def test_a_backbone_that_is_not_served_fails_with_the_reason_and_harms_no_other(call, folder):
    status, out, _ = call("--models", "test_efficientnet,test_vit", "--methods", "none")
    assert status == 2
    text = " ".join(out.split())
    assert "EfficientNet is not served: reducers run timm's VisionTransformer" in text
    assert "Traceback" not in out
    assert [record.spec.model for record in folder.all()] == ["test_vit.random"]


PAGE = (Path(__file__).parents[3] / "docs" / "throughput.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ nox -s bench-throughput -- (.+)$", PAGE.replace("\\\n", ""), re.MULTILINE)


def test_the_page_explains_every_option():
    for parameter in throughput_.command.params:
        for name in parameter.opts:
            assert f"`{name}" in PAGE
    assert len(COMMANDS) == 4


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_page_are_understood(line):
    with click.Context(throughput_.command) as context:
        throughput_.command.parse_args(context, shlex.split(line))
    asked = {name: value for name, value in context.params.items() if name not in {"device", "results_folder"}}
    jobs.check_names(speedsuite.suite(**asked))
