"""Made results folders and claims, and the site read back from its files."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from tests.tokenmark import make
from tokenmark.claims.files import read
from tokenmark.claims.judged import VERDICTS, Judged
from tokenmark.leaderboard import site
from tokenmark.leaderboard.contents import Contents, stored
from tokenmark.records import Record, Value
from tokenmark.store import Results

TOKENIZED = (
    *make.RECONSTRUCTED,
    Value(name="tokens_per_image", value=64.0, n=500),
    Value(name="bits_per_pixel", value=0.5, n=500, se=0.0),
    Value(name="codebook_use", value=0.9, n=500),
)

CLAIMS = """
version = 1
title = "{title}"
url = "{url}"
year = 2024
name = "{name}"

[defaults]
printed = "table 2"
origin = "paper"
protocol = "mini"
data = "digits-32/val"
samples = 500
resolution = 32
precision = "unstated"
selection = "unstated"
"""
CLAIM = """
[[claims]]
id = "{id}"
about = "{about}"
quantity = "rfid"
value = "{value}"
subject = {{ method = "jpeg", variant = "q50" }}
note = "{note}"
"""
NUMBERS = ("12.3", "13.0", "5.00", "12.35", "1.7")


def stored_in(folder: Path, *records: Record, pictures=None) -> Results:
    """A results folder with these records; `pictures` are bytes by name, of those that have them."""
    results = Results(folder / "results")
    for record in records:
        results.write(record, {name: (pictures or {})[name] for name in record.pictures})
    return results


def judged(
    folder: Path, records, *, title="A paper", url="https://example.org/paper", about="JPEG, quality 50", note="n"
):
    """Five claims of one paper, one of each verdict."""
    text = CLAIMS.format(title=title, url=url, name=title)
    for place, value in enumerate(NUMBERS):
        text += CLAIM.format(id=f"claim-{place}", about=about, value=value, note=note)
    path = folder / "a-paper.toml"
    path.write_text(text, encoding="utf-8")
    found = []
    for filed, verdict in zip(read(path), VERDICTS, strict=True):
        if verdict == "not run":
            found.append(Judged(filed, verdict, "nothing ran", command="nox -s bench-mini", needs="nothing"))
        else:
            each = records[0]
            value = each.value("rfid").value
            facts = {"differing": ("precision",)} if verdict == "protocol differs" else {}
            found.append(
                Judged(filed, verdict, "so it is", value, (value - 1, value + 1), 0.5, records=(each,), **facts)
            )
    return tuple(found)


def files(results: Results, judged=()) -> dict[str, bytes]:
    """The site's files by path; no path comes twice."""
    records, folders = stored(results)
    found = list(site.pages(Contents(records, folders, tuple(judged))))
    assert len({path for path, _ in found}) == len(found)
    return dict(found)


@dataclass
class Page(HTMLParser):
    """What of a page tests ask for."""

    text: str
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
    cells: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.handlers += [name for name in found if name.startswith("on")]
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        elif "src" in found or "href" in found:
            self.loads.append(found.get("src") or found["href"])
        if tag in {"td", "th"}:
            self.cells.append(found)


def pages(found: dict[str, bytes]) -> dict[str, Page]:
    return {path: Page(data.decode()) for path, data in found.items() if path.endswith(".html")}
