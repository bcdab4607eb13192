"""`tokenmark weights`: what others published, on this machine's shelf."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokenmark.cli.options import suites_option, weights_option
from tokenmark.errors import TokenmarkError

if TYPE_CHECKING:
    from tokenmark.contracts import Variant
    from tokenmark.shelf import Shelf


class Names(click.Group):
    """Takes a method's name in a verb's place, for what `show` says of it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A verb if there is one of that name, else `show`."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            return "show", self.commands["show"], args
        return super().resolve_command(ctx, args)


@click.group("weights", cls=Names, no_args_is_help=False, invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Weights that others published: list them, pin which bytes are meant, download those.

    \b
    To see where a method's weights are, their licence, revision and hash as far as they are known:
      tokenmark weights titok
    To measure a released model:
      tokenmark weights pin titok/l32      asks the hub which commit and SHA-256 it has, and writes them down
      tokenmark weights fetch titok/l32    downloads exactly those bytes

    Nothing else downloads anything unless it is told to. A file that you put into the folder yourself is taken as it
    is; its SHA-256 stands in every record.
    """  # noqa: D301  click's own sign: lines that follow are not joined
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@weights_option
@suites_option
def list_(as_json: bool, weights_folder: Path, suites_folder: Path) -> None:
    """List weights by name: what they are for, where they come from, and how they stand.

    \b
    bundled      in the repository
    here         in the folder
    missing      pinned, and not in the folder: `tokenmark weights fetch NAME`
    not pinned   neither: `tokenmark weights pin NAME` comes first

    Of timm's classifiers those are listed that the suites here measure; all others have a name too.
    """  # noqa: D301  as above
    from tokenmark import catalogue, tables  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.shelf import Shelf  # noqa: PLC0415

    shelf = Shelf(weights_folder)
    rows = [
        {"name": entry.name, "kind": entry.kind, "from": entry.source, "state": entry.state(shelf)}
        for entry in catalogue.entries(suites_folder)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    tables.print_rows(f"Weights; those of others lie in {weights_folder}", rows)


@command.command("show")
@click.argument("method")
@weights_option
def show(method: str, weights_folder: Path) -> None:
    """Say where the weights of METHOD's variants are: file, licence, revision and hash as far as they are known."""
    from tokenmark import registry  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.errors import UnknownNameError  # noqa: PLC0415
    from tokenmark.shelf import Shelf  # noqa: PLC0415

    if method not in registry.locations():
        raise UnknownNameError("verb or method", method, [*command.commands, *registry.locations()])
    found = registry.get(method)
    variants = getattr(found, "variants", {})
    if not variants:
        click.echo(f"{method} has no weights: it is applied to a classifier, whose weights have names of their own")
        return
    shelf = Shelf(weights_folder)
    click.echo(f"{found.title}: {found.paper.citation}")
    for name, variant in variants.items():
        click.echo(f"\n{method}/{name}")
        for key, text in _facts(variant, shelf, registry.locations()[method].package).items():
            click.echo(f"  {key:9} {text}")


def _facts(variant: "Variant", shelf: "Shelf", package: str) -> dict[str, str]:
    """What is known of a variant's weights, by line."""
    note = {"note": variant.note} if variant.note else {}
    if "model" in variant.config:
        note["reduces"] = f"{variant.config['model']}, settings {dict(variant.config.get('settings', {}))}"
    if variant.weights is not None:
        return {"file": f"{package}/weights/{variant.weights}.safetensors, in the repository", **note}
    release = variant.release
    if release is None:
        return note or {"file": "none: it has no weights"}
    pin = shelf.pin(release)
    place = shelf.path(release)
    return {
        "file": f"{release.file} of {release.repo} on the hub",
        "licence": release.licence or "not known",
        "revision": (pin.revision if pin else None) or release.revision or "not known: `tokenmark weights pin` asks",
        "SHA-256": (pin.sha256 if pin else None) or release.sha256 or "not known: `tokenmark weights pin` asks",
        "here": str(place) if place else f"no; it would lie at {shelf.places(release)[0]}",
        **({"needs too": ", ".join(part.name for part in variant.parts)} if variant.parts else {}),
        **note,
    }


@command.command("pin")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@weights_option
@suites_option
def pin(names: tuple[str, ...], weights_folder: Path, suites_folder: Path) -> int:
    """Ask the hub which commit and SHA-256 it has of NAME, and write them into pins.toml. Downloads no weights.

    NAME is as `tokenmark weights list` shows it (titok/l32), a classifier of timm's with its tag
    (deit_small_patch16_224.fb_in1k), or a suite, for all that it reads (reconstruction-256). From then on only
    these bytes are taken under that name: trust begins here, so compare the hash with one that you have from elsewhere
    if you can. To take what the hub has later, pin again.
    """
    from tokenmark import catalogue, hub, pins  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.contracts import Release  # noqa: PLC0415

    def one(name: str) -> None:
        item = catalogue.get(name)
        if not isinstance(item, Release):
            click.echo(f"{name}: nothing to pin: {item.key} was published with its SHA-256, {item.sha256}")
            return
        offer = hub.offer(item)
        pins.add(weights_folder, {item.key: offer.pin})
        click.echo(f"{name}: {item.key}, {offer.size:,} bytes{f', {item.licence}' if item.licence else ''}")
        click.echo(f"  revision {offer.pin.revision}\n  SHA-256  {offer.pin.sha256}")
        click.echo(f"  written to {weights_folder / pins.FILE}: from here on these bytes are trusted, and no others")

    return _each(catalogue.expanded(names, suites_folder), one)


@command.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@weights_option
@suites_option
def fetch(names: tuple[str, ...], weights_folder: Path, suites_folder: Path) -> int:
    """Download NAME as it is pinned; what is in the folder already is only checked. A suite stands for all it reads.

    A file gets its name when its SHA-256 is the pinned one, never before. Stop it whenever you like: the same command
    goes on with what is not whole yet.
    """
    from tokenmark import catalogue  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.shelf import Shelf  # noqa: PLC0415

    shelf = Shelf(weights_folder, download=True)

    def one(name: str) -> None:
        item = catalogue.get(name)
        found = shelf.find(item, name)
        click.echo(f"{name}: {found.path}, {found.path.stat().st_size:,} bytes\n  SHA-256 {found.sha256}")
        for warning in found.warnings:
            click.echo(f"  {warning}")

    return _each(catalogue.expanded(names, suites_folder), one)


def _each(names: Iterable[str], act: Callable[[str], None]) -> int:
    """Do it for every name, whatever happens to the others; 2 if it failed for one."""
    status = 0
    for name in names:
        try:
            act(name)
        except TokenmarkError as error:
            click.echo(f"tokenmark: {' '.join(str(error).split())}", err=True)
            status = 2
    return status
