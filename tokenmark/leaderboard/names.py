"""What the files of the site are called. Names come from records and claims, and so from strangers: they stay names."""

import re

from tokenmark.files import sha256_text

SAFE = re.compile(r"[a-z0-9]+(?:[-._][a-z0-9]+)*")
LONGEST = 80


def slug(text: str) -> str:
    """`text` where it can be a file's name and a part of a link as it is; else what is left of it, and a hash."""
    if SAFE.fullmatch(text) and len(text) <= LONGEST and text != "index":
        return text
    left = "-".join(re.findall("[a-z0-9]+", text.lower()))[:LONGEST].strip("-")
    return f"{left or 'unnamed'}-{sha256_text(text)[:10]}"


def track_page(track: str, protocol: str) -> str:
    """The page of a track under one protocol."""
    return f"tracks/{slug(track)}--{slug(protocol)}.html"


def group_anchor(heading: str) -> str:
    """Where a group stands on its track's page."""
    return f"group-{sha256_text(heading)[:8]}"


def group_place(track: str, protocol: str, heading: str) -> str:
    """A link to a group on its track's page."""
    return f"{track_page(track, protocol)}#{group_anchor(heading)}"


def data_file(track: str, protocol: str, heading: str, plot: str = "") -> str:
    """The CSV of a group's table, or of one of its plots; the same whichever other groups there are."""
    ending = f"--{plot}" if plot else ""
    return f"data/{slug(track)}--{slug(protocol)}--{sha256_text(heading)[:8]}{ending}.csv"


def method_page(method: str) -> str:
    """The page of a method."""
    return f"methods/{slug(method)}.html"


def paper_page(file: str) -> str:
    """The page of a paper, by the name of its file of claims."""
    return f"papers/{slug(file)}.html"


def claim_page(file: str, claim: str) -> str:
    """The page of a claim."""
    return f"claims/{slug(file)}--{slug(claim)}.html"


def record_page(run: str) -> str:
    """The page of a record."""
    return f"records/{run}.html"


def record_file(run: str) -> str:
    """The record itself."""
    return f"records/{run}.json"


def value_place(run: str, value: str) -> str:
    """Where a record's page shows one of its values; its beginning where `value` is none."""
    return f"{record_page(run)}#{value_anchor(value)}" if value else record_page(run)


def value_anchor(value: str) -> str:
    """The anchor of a value on its record's page."""
    return f"value-{slug(value)}"
