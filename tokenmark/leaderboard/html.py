"""From what a page shows to its HTML."""

from pathlib import Path, PurePosixPath
from typing import Any

import jinja2

from tokenmark import __version__
from tokenmark.leaderboard.view import File

HERE = Path(__file__).parent
ASSETS = (
    *("assets/site.css", "assets/site.js", "assets/plots.js"),
    *("vendor/d3.min.js", "vendor/d3.LICENSE", "vendor/plot.umd.min.js", "vendor/plot.LICENSE"),
)
"""What all pages share; each stays under its own path."""

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(path: str, template: str, *, title: str, **shown: Any) -> File:
    """The page at `path`, made by a template from what is shown; whatever comes as text is escaped."""
    root = "../" * (len(PurePosixPath(path).parts) - 1)
    text = ENVIRONMENT.get_template(f"{template}.html.jinja").render(
        path=path, root=root, title=title, version=__version__, **shown
    )
    return File(path, text.encode())


def assets() -> list[File]:
    """Styles, scripts and the libraries that draw, with their licences."""
    return [File(name, (HERE / name).read_bytes()) for name in ASSETS]


def outside(url: str) -> str:
    """An address that may become a link: plugins and claims name their own, and only ordinary ones are followed."""
    return url if url.startswith(("https://", "http://")) else ""
