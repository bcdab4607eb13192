"""The first page: what there is, and how to read it."""

from tokenmark.claims import report
from tokenmark.claims.judged import Judged
from tokenmark.leaderboard import badges, html, names
from tokenmark.leaderboard.contents import Contents
from tokenmark.leaderboard.view import File
from tokenmark.tracks import Group, Track


def page(contents: Contents) -> File:
    """`index.html`. Its title is the mark by which a site is known."""
    found: dict[str, list[dict[str, object]]] = {}
    for (track, protocol), groups in contents.tracks.items():
        found.setdefault(track.title, []).append(_page_of(track, protocol, groups))
    return html.page(
        "index.html",
        "index",
        title="Tokenmark leaderboard",
        tracks=found,
        abouts={track.title: track.about for track, _ in contents.tracks},
        records=len(contents.records),
        methods=len(contents.methods),
        papers=len(contents.papers),
        verdicts=_verdicts(contents.judged),
        claims=len(contents.judged),
    )


def _page_of(track: Track, protocol: str, groups: list[Group]) -> dict[str, object]:
    return {
        "protocol": protocol,
        "href": names.track_page(track.id, protocol),
        "rows": sum(len(group.records) for group in groups),
        "groups": len(groups),
        "mini": protocol == badges.MINI,
    }


def _verdicts(judged: tuple[Judged, ...]) -> list[dict[str, object]]:
    counts = report.counts(judged)
    return [
        {"badge": badge, "count": counts[verdict], "query": verdict.replace(" ", "+")}
        for verdict, badge in badges.VERDICT_BADGES.items()
    ]
