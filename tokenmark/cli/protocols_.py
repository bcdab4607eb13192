"""`tokenmark protocols`: what a number was measured under, in full."""

import json

import click


@click.command("protocols")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(name: str | None, as_json: bool) -> None:
    """Show every choice of protocol NAME and what it means, or list the protocols.

    A protocol is everything around a method that can move its number. Numbers under different protocols are never
    ranked together.
    """
    from tokenmark import protocols, tables  # noqa: PLC0415  the engine takes seconds to import

    if name is None:
        found = protocols.PROTOCOLS.values()
        if as_json:
            click.echo(json.dumps([protocol.model_dump(mode="json") for protocol in found], indent=1))
            return
        rows = [{"protocol": f"{each.id} v{each.version}", "title": each.title} for each in found]
        tables.print_rows("Protocols", rows)
        return
    protocol = protocols.get(name)
    if as_json:
        click.echo(protocol.model_dump_json(indent=1))
        return
    rows = [{"axis": axis, "value": value, "meaning": meaning} for axis, value, meaning in protocol.axes()]
    rows.append({"axis": "used_by", "value": ", ".join(protocol.used_by) or "no release", "meaning": ""})
    rows.append({"axis": "differs", "value": "", "meaning": protocol.differs})
    rows.append({"axis": "sha256", "value": protocol.sha256[:16], "meaning": "of every choice that can move a number"})
    tables.print_rows(f"{protocol.id} v{protocol.version}: {protocol.title}", rows)
