"""docs/measured.md: a section per benchmark, each written by its own command and left alone by the others."""

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from tokenmark.files import write_atomic
from tokenmark.provenance import device_label

PAGE = Path("docs/measured.md")
HEAD = """# Measured

What is measured about Tokenmark itself. `nox -s bench-measures` does all of it, one part after the other; each section
says which command writes it alone. Every ratio is of medians in one run, contenders taking turns.
"""


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head, and all columns but the first are numbers."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def command(part: str) -> str:
    """The command that runs this part again with the arguments that it has now."""
    session = ["bench-reduction", "--"] if part == "reduction" else ["bench-measures", "--", part]
    return shlex.join(["nox", "-s", *session, *sys.argv[1:]])


def machine(device: torch.device, libraries: Sequence[str]) -> str:
    """Where it was measured, in one line: devices, threads, versions."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)
    processor = device_label(torch.device("cpu"))
    devices = processor if device.type == "cpu" else f"{device_label(device)}; {processor}"
    return f"{devices} of {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"


def with_section(page: str, name: str, text: str) -> str:
    """The page with the section between its marks replaced, or added at the end."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    section = f"{begin}\n{text.strip()}\n{end}\n"
    head, mark, rest = page.partition(f"{begin}\n")
    if not mark:
        return f"{page.rstrip()}\n\n{section}"
    return head + section + rest.partition(f"{end}\n")[2]


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Write one benchmark's section into the page."""
    before = page.read_text(encoding="utf-8") if page.exists() else HEAD
    write_atomic(page, with_section(before, name, text).encode())
