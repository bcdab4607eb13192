"""A page per method that was measured or that papers make claims about."""

import dataclasses
from collections.abc import Iterator

from tokenmark import registry
from tokenmark.contracts import Method, NoSettings
from tokenmark.errors import TokenmarkError
from tokenmark.leaderboard import grids, html, names
from tokenmark.leaderboard.contents import Contents
from tokenmark.leaderboard.view import Entry, Fact, File, Grid, Heading, Row, Section, choices
from tokenmark.tracks import Group


def pages(contents: Contents) -> Iterator[File]:
    """Every method's page, and the list of all."""
    grid = _list(contents)
    yield html.page(
        "methods/index.html",
        "listing",
        title="Methods",
        about="Every method with a record or a claim.",
        grid=grid,
        choices=choices({"kind": "kind"}, grid.rows),
    )
    for name in contents.methods:
        yield _page(contents, name)


def installed(name: str) -> Method | None:
    """The method, where it is installed here: records outlive the packages that made them."""
    try:
        return registry.get(name)
    except TokenmarkError:
        return None


def _list(contents: Contents) -> Grid:
    return Grid(
        label="All methods",
        headings=(
            Heading("method", numeric=False),
            Heading("kind", numeric=False),
            Heading("idea", numeric=False),
            Heading("records"),
            Heading("claims"),
        ),
        rows=tuple(_row(contents, name) for name in contents.methods),
    )


def _row(contents: Contents, name: str) -> Row:
    method = installed(name)
    kind = registry.kind_of(method) if method else "not installed"
    page = names.method_page(name)
    entries = (
        Entry(name, href=page),
        Entry(kind),
        Entry(method.idea if method else "", words=True),
        _count(len(contents.by_method.get(name, [])), page),
        _count(len(contents.claims_by_method.get(name, [])), page),
    )
    return Row(entries, {"kind": kind})


def _count(number: int, page: str) -> Entry:
    return Entry(str(number), number, page if number else "")


def _page(contents: Contents, name: str) -> File:
    method = installed(name)
    return html.page(
        names.method_page(name),
        "method",
        title=name,
        name=name,
        kind=registry.kind_of(method) if method else "",
        idea=method.idea if method else "",
        facts=_facts(method) if method else [],
        sections=list(_sections(contents, name, method)),
    )


def _facts(method: Method) -> list[Fact]:
    facts = [
        Fact("title", method.title),
        Fact("paper", method.paper.citation, html.outside(method.paper.url)),
        Fact("authors", method.paper.authors),
    ]
    if acts := getattr(method, "acts", ""):
        facts.append(Fact("acts", acts))
    if presets := getattr(method, "presets", {}):
        facts.append(Fact("presets", ", ".join(presets)))
    return facts


def _sections(contents: Contents, name: str, method: Method | None) -> Iterator[Section]:
    shown: set[str] = set()
    for (track, protocol), groups in contents.tracks.items():
        for group in groups:
            mine = tuple(record for record in group.records if record.spec.method == name)
            if mine:
                shown.update(record.run for record in mine)
                grid = grids.of_group(track, Group(group.heading, mine), device=True)
                words = f"{len(mine)} of {len(group.records)} rows of this group"
                link = Fact("all", words, names.group_place(track.id, protocol, group.heading))
                anchor = f"{track.id}-{names.group_anchor(group.heading)}"
                yield Section(anchor, track.title, grid, note=group.heading, facts=(link,))
    others = [record for record in contents.by_method.get(name, []) if record.run not in shown]
    if others:
        grid = grids.of_records("Other records", others, contents.standing)
        yield Section("others", "Other records", grid, note="Superseded, or of values that no track shows.")
    if claims := contents.claims_by_method.get(name):
        yield Section("claims", "Claims", grids.of_claims(f"Claims about {name}", claims))
    if method is not None:
        yield from _makings(method)


def _makings(method: Method) -> Iterator[Section]:
    """What there is to choose: variants and settings."""
    variants = getattr(method, "variants", {})
    if variants:
        headings = (
            Heading("variant", numeric=False),
            Heading("weights", numeric=False),
            Heading("note", numeric=False),
        )
        rows = tuple(
            Row(
                (
                    Entry(name),
                    Entry(
                        "in this repository" if variant.weights else variant.release.key if variant.release else "none"
                    ),
                    Entry(variant.note, words=True),
                )
            )
            for name, variant in variants.items()
        )
        yield Section("variants", "Variants", Grid(f"Variants of {method.id}", headings, rows))
    if method.settings is not NoSettings and dataclasses.is_dataclass(method.settings):
        facts = tuple(Fact(each.name, _default(each), code=True) for each in dataclasses.fields(method.settings))
        yield Section("settings", "Settings", facts=facts, note="With their defaults.")


def _default(setting: dataclasses.Field[object]) -> str:
    if setting.default is not dataclasses.MISSING:
        return repr(setting.default)
    return repr(setting.default_factory()) if setting.default_factory is not dataclasses.MISSING else "to be given"
