"""Download one address into a file, going on where an earlier try was cut off."""

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tokenmark import __version__
from tokenmark.errors import WeightsError

SECONDS = 30.0
"""How long the server may be silent."""
CHUNK = 1 << 20


def download(url: str, path: Path) -> None:
    """Write what is at `url` to `path`, behind what is there from an earlier try; its bytes are yet to be checked.

    Raises:
        WeightsError: the server cannot be reached, refuses, or stops before the end; what came is kept.
        OSError: it cannot be written.
    """
    done = path.stat().st_size if path.is_file() else 0
    headers = {"User-Agent": f"tokenmark/{__version__}", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS) as answer:  # noqa: S310  addresses stand in the source, and bytes are checked
            _write(answer, path, done if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0)
    except urllib.error.HTTPError as error:
        if done and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all of it came before
        raise WeightsError(f"{url} answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise WeightsError(
            f"{url}: download failed: {getattr(error, 'reason', error)}; run the same command again"
        ) from error


def _write(answer: http.client.HTTPResponse, path: Path, done: int) -> None:
    length = answer.headers.get("Content-Length")
    total = done + int(length) if length else None
    columns = (TextColumn("{task.description}"), BarColumn(24), DownloadColumn(), TransferSpeedColumn())
    with (
        path.open("ab" if done else "wb") as file,
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress,
    ):
        bar = progress.add_task(path.name, total=total, completed=done)
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            progress.update(bar, completed=done)
    if total is not None and done != total:
        raise ConnectionError(f"cut off after {done:,} of {total:,} bytes")
