"""What docs/parity.md says: its command is run, and gives what the page shows."""

import re
import shlex
from pathlib import Path

from tokenmark.cli.main import status_of
from tokenmark.parity.vector import Vector

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")


def test_the_command_gives_what_is_shown(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MKL_CBWR", "AUTO")  # not left behind for the tests that follow
    (command,) = re.findall(r"^\$ tokenmark (.*)$", TEXT, re.MULTILINE)
    assert status_of(shlex.split(command)) == 0
    (shown,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    assert capsys.readouterr().out == shown


def test_the_fields_are_a_vectors():
    named = set(re.findall(r"^\| (`.*?`) \|", TEXT, re.MULTILINE))
    fields = {name for cell in named for name in re.findall(r"`(\w+)`", cell)}
    assert fields <= set(Vector.model_fields)
    assert fields >= {"system", "config", "parameters", "kept", "scale", "inputs", "outputs"}


def test_the_example_imports_what_there_is():
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    lines = [line for line in example.splitlines() if line.startswith("from ") and "my_vq" not in line]
    for line in lines:
        compile(line, "parity.md", "exec")
        exec(line, {})
