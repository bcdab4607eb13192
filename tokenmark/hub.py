"""The Hugging Face hub, as far as weights need it: which commit and hash are there, and one file at one commit.

`HF_ENDPOINT`, tokens and proxies are those of `huggingface_hub`. Every way in which it can fail is one clear line.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from tokenmark import __version__
from tokenmark.contracts import Release
from tokenmark.errors import WeightsError
from tokenmark.pins import Pin

SECONDS = 20.0
"""How long the hub may take to say what it has."""
AGENT = f"tokenmark/{__version__}"


@dataclass(frozen=True, slots=True)
class Offer:
    """What the hub has today."""

    pin: Pin
    size: int
    """In bytes."""


def offer(release: Release) -> Offer:
    """Commit, hash and size of a release: at its own commit if it names one, else at the newest. Downloads nothing.

    Raises:
        WeightsError: the hub cannot be reached, does not have it, or knows no SHA-256 of it.
    """
    api = HfApi(user_agent=AGENT)
    with _asking(release, release.revision):
        revision = release.revision or api.model_info(release.repo, timeout=SECONDS).sha
        found = [
            path
            for path in api.get_paths_info(release.repo, [release.file], revision=revision)
            if isinstance(path, RepoFile)
        ]
    if not found:
        raise WeightsError(f"{release.repo} has no file {release.file} at {revision or 'its newest commit'}")
    if found[0].lfs is None:
        raise WeightsError(
            f"the hub knows no SHA-256 of {release.key}, which is not kept by LFS: download it, look at it, and write"
            " its revision and sha256 into pins.toml yourself"
        )
    return Offer(Pin(revision=revision, sha256=found[0].lfs.sha256), found[0].lfs.size)


def download(release: Release, pin: Pin, folder: Path) -> Path:
    """Put one file at the pinned commit into a folder, and say where; its bytes are yet to be checked.

    Raises:
        WeightsError: the hub cannot be reached, does not have it there, or says that it has other bytes.
        OSError: it cannot be written.
    """
    revision = pin.revision
    with _asking(release, revision):
        url = hf_hub_url(release.repo, release.file, revision=revision)
        told = get_hf_file_metadata(url, timeout=SECONDS, user_agent=AGENT)
    if told.commit_hash != revision:
        raise WeightsError(f"{constants.ENDPOINT} gives commit {told.commit_hash} of {release.key}, not {revision}")
    if told.etag is not None and len(told.etag) == len(pin.sha256) and told.etag != pin.sha256:  # an LFS file's
        raise WeightsError(
            f"{release.key} is pinned to SHA-256 {pin.sha256}, but the hub's at {revision} has {told.etag}:"
            " nothing was downloaded"
        )
    with _asking(release, revision):
        return Path(hf_hub_download(release.repo, release.file, revision=revision, local_dir=folder, user_agent=AGENT))


@contextlib.contextmanager
def _asking(release: Release, revision: str | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the hub's library passes on errors of whatever HTTP library it has
        if isinstance(error, OSError) and error.strerror and not isinstance(error, HfHubHTTPError | ConnectionError):
            raise  # the disk's
        raise WeightsError(f"{release.key}: {_reason(error, release, revision)}") from error


def _reason(error: Exception, release: Release, revision: str | None) -> str:
    match error:
        case GatedRepoError():
            return f"gated: accept its terms at {constants.ENDPOINT}/{release.repo}, then log in with `hf auth login`"
        case RepositoryNotFoundError():
            return f"{constants.ENDPOINT} has no such repository, or not for you: log in with `hf auth login`"
        case RevisionNotFoundError():
            return f"revision {revision} is gone from the hub: look at what it has now, and pin again"
        case RemoteEntryNotFoundError():
            return f"there is no such file at revision {revision}"
        case HfHubHTTPError():
            return f"{constants.ENDPOINT} answered {error.response.status_code}"
    why = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
    return f"asking {constants.ENDPOINT} failed: {why[:200]}; run the same command again when it can be reached"
