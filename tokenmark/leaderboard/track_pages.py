"""A page per track and protocol: a table for each group of rows that may be ranked, and its plots."""

from collections.abc import Iterator

from tokenmark.leaderboard import badges, csvs, grids, html, names, plots
from tokenmark.leaderboard.contents import Contents
from tokenmark.leaderboard.view import File, Section
from tokenmark.protocols import PROTOCOLS
from tokenmark.tracks import Group, Track


def pages(contents: Contents) -> Iterator[File]:
    """Every track's page under every protocol, with its CSV files."""
    for (track, protocol), groups in contents.tracks.items():
        sections = []
        for group in groups:
            section, files = _section(track, protocol, group)
            sections.append(section)
            yield from files
        known = PROTOCOLS.get(protocol)
        yield html.page(
            names.track_page(track.id, protocol),
            "track",
            title=f"{track.title}, protocol {protocol}",
            track=track,
            mini=protocol == badges.MINI,
            protocol=known,
            protocol_name=protocol,
            sections=sections,
            records=sum(len(group.records) for group in groups),
            drawn=any(section.figures for section in sections),
        )


def _section(track: Track, protocol: str, group: Group) -> tuple[Section, list[File]]:
    anchor = names.group_anchor(group.heading)
    csv = names.data_file(track.id, protocol, group.heading)
    figures = plots.of_group(track, group, anchor)
    section = Section(
        id=anchor,
        title=group.heading,
        grid=grids.of_group(track, group, csv),
        figures=tuple(figure for figure, _ in figures),
    )
    return section, [File(csv, csvs.of_group(track, group)), *(file for _, file in figures)]
