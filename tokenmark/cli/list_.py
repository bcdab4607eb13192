"""`tokenmark list`: what can be measured, and with what."""

import dataclasses
import json
from pathlib import Path

import click

from tokenmark.cli.options import suites_option


@click.command("list")
@click.argument("what", type=click.Choice(["methods", "suites"]), default="methods")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@suites_option
def command(what: str, as_json: bool, suites_folder: Path) -> None:
    """List methods with their papers (default), or suites."""
    from tokenmark import tables  # noqa: PLC0415  the engine takes seconds to import

    rows = _methods() if what == "methods" else _suites(suites_folder)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    tables.print_entries(rows) if what == "methods" else tables.print_rows(what.capitalize(), rows)


def _methods() -> list[dict[str, str]]:
    from tokenmark import registry  # noqa: PLC0415

    rows = []
    for name in registry.locations():
        method = registry.get(name)
        rows.append(
            {
                "method": name,
                "kind": registry.kind_of(method),
                "title": method.title,
                "idea": method.idea,
                "paper": method.paper.citation,
                "link": method.paper.url,
                "variants": ", ".join(getattr(method, "variants", ())),
                "presets": ", ".join(getattr(method, "presets", ())),
                "settings": ", ".join(field.name for field in dataclasses.fields(method.settings)),
            }
        )
    return sorted(rows, key=lambda row: (row["kind"] != "tokenizer", row["kind"] != "generator", row["method"]))


def _suites(folder: Path) -> list[dict[str, str]]:
    from tokenmark import suites  # noqa: PLC0415

    found = [(path.stem, suites.load(path)) for path in sorted(folder.glob("*.toml"))]
    return [
        {"suite": name, "title": suite.title, "protocol": suite.protocol, "jobs": str(len(suite.jobs))}
        for name, suite in found
    ]
