"""What docs/verify.md says: its commands are run, its example is a claim, and its numbers are those of the code."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tokenmark.claims import report, verdict
from tokenmark.claims.judged import VERDICTS
from tokenmark.claims.quantities import QUANTITIES
from tokenmark.claims.schema import Paper
from tokenmark.cli.main import status_of
from tokenmark.cli.verify_ import NAMES
from tokenmark.records import Z95

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ nox -s verify -- (.*)$", TEXT, re.MULTILINE)
SHOWN = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command, capsys):
    assert status_of(["verify", *shlex.split(command)]) == 0
    assert " of 1 paper: " in capsys.readouterr().out


def test_the_claim_is_told_as_the_page_shows_it(capsys):
    (command,) = (command for command in COMMANDS if "kr70-macs" in command)
    status_of(["verify", *shlex.split(command)])
    out = " ".join(capsys.readouterr().out.split())
    assert " ".join(SHOWN[0].split()) in out


def test_the_example_is_a_claim():
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    paper = Paper.model_validate(tomllib.loads(example))
    assert paper.claims[0].samples == 50000


def test_all_verdicts_stand_there_with_their_signs():
    rows = dict(re.findall(r"^\| `(.)` \| ([a-z ]+) \|", TEXT, re.MULTILINE))
    assert NAMES == VERDICTS
    assert rows == {report.MARKS[name]: name for name in VERDICTS}


def test_tolerances_are_the_codes():
    text = " ".join(TEXT.split())
    assert {QUANTITIES[name].port for name in ("gfid", "rfid", "sfid", "precision")} == {0.002}
    assert "0.002 for FID, sFID and precision, 0.003 for recall, 0.15 for the Inception score" in text
    assert (QUANTITIES["recall"].port, QUANTITIES["inception-score"].port) == (0.003, 0.15)
    assert (Z95, verdict.ABOUT) == (1.96, 0.05)
    assert {each.name for each in QUANTITIES.values() if each.port} == {
        "rfid", "gfid", "sfid", "inception-score", "precision", "recall",
    }  # fmt: skip
