"""The command that makes a record again: the command line takes it, and it asks for the same run."""

import shlex

import click
import pytest

from tests.tokenmark import make
from tokenmark.cli.run_ import command as run
from tokenmark.cli.throughput_ import command as throughput
from tokenmark.leaderboard import again


def parsed(record):
    """Options of the last line, as the command line understands them."""
    *before, last = again.commands(record)
    words = shlex.split(last)
    assert words[:4] == ["nox", "-s", "tokenmark", "--"]
    verb: click.Command = {"run": run, "throughput": throughput}[words[4]]
    return before, verb.make_context(words[4], words[5:]).params


def test_a_run_of_a_suite():
    before, options = parsed(make.record())
    assert before == [f"git checkout {'0' * 40}"]
    assert (options["suites"], options["methods"], options["device"]) == (("made",), ("jpeg",), "cpu")
    assert options["limit"] is None


def test_a_subset_asks_for_as_many_images():
    assert parsed(make.record(samples=100))[1]["limit"] == 100


def test_a_commit_that_is_not_known_is_not_checked_out():
    assert parsed(make.record(environ=make.environment(commit=None)))[0] == []


def test_another_device_is_left_to_the_reader():
    _, options = parsed(make.record(environ=make.environment(device="cuda"), device="cuda: Made"))
    assert options["device"] == "auto"


def test_a_throughput_from_the_command_line():
    record = make.classified(
        suite="throughput",
        protocol="throughput",
        samples=0,
        model="deit_tiny_patch16_224.random",
        settings={"r": 13, "name": "a b"},
        timing={"batches": [1, 64], "min_seconds": 0.5, "min_rounds": 7, "compiled": True},
        precision="bfloat16",
        seed=3,
    )
    _, options = parsed(record)
    assert options["models"] == "deit_tiny_patch16_224.random"
    assert options["methods"] == "tome"
    assert options["given"] == ("tome.r=13", 'tome.name="a b"')
    assert (options["batches"], options["min_seconds"], options["min_rounds"]) == ("1,64", 0.5, 7)
    assert (options["compiled"], options["precision"], options["seed"]) == (True, "bfloat16", 3)


def test_a_tokenizer_from_the_command_line():
    record = make.record(task="tokenization", suite="throughput", protocol="throughput", method="titok", variant="s128")
    assert parsed(record)[1]["tokenizers"] == "titok/s128"


@pytest.mark.parametrize("name", ["$(rm -rf ~)", "a; b", "it's", "`x`"])
def test_names_of_others_are_quoted(name):
    *_, last = again.commands(make.record(method=name))
    assert shlex.split(last)[-3] == name
    assert shlex.quote(name) in last
