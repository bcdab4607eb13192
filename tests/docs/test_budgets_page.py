"""What docs/budgets.md says: its commands are run, and give what the page shows."""

import re
import shlex
import tomllib
from pathlib import Path

from tokenmark.cli.main import status_of
from tokenmark.suites import ClassificationJob

TEXT = (Path(__file__).parents[2] / "docs" / "budgets.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ tokenmark (.*)$", TEXT, re.MULTILINE)
SHOWN = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)


def test_a_budget_that_is_met(capsys):
    assert status_of(shlex.split(COMMANDS[0])) == 0
    assert capsys.readouterr().out == SHOWN[0]


def test_budgets_that_are_not_met(capsys):
    assert [status_of(shlex.split(command)) for command in COMMANDS[1:]] == [2, 2]
    assert capsys.readouterr().err == SHOWN[1]


def test_the_line_of_a_suite_is_a_job():
    (line,) = re.findall(r"```toml\n(.*?),\n```", TEXT, re.DOTALL)
    job = ClassificationJob.model_validate(tomllib.loads(f"job = {line}")["job"])
    assert job.budget == ["2.0G", "3.0G", "4.0G"]
