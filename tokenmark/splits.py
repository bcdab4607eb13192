"""The prepared images that a protocol names for a task, cropped as it says."""

from pathlib import Path

from tokenmark.data import catalog
from tokenmark.data.prepared import PreparedData
from tokenmark.errors import DataError
from tokenmark.protocols import Protocol

ANY_CROP = ("none", "as-given")
"""What a protocol says that leaves the pixels to whoever made the data set."""


def load(protocol: Protocol, task: str, folder: Path) -> PreparedData:
    """Open a protocol's data set for `task` in `folder`.

    Raises:
        SuiteError: the protocol has no data of its own for this task.
        UnknownNameError: no such data set.
        MissingDataError: it must be prepared, by the command in the message.
        DataError: it is there, but damaged, or was cropped by another rule than the protocol's.
    """
    name, split = protocol.split(task)
    data = catalog.load(name, split, folder)
    crop = data.manifest.crop
    if protocol.crop not in (*ANY_CROP, crop):
        raise DataError(f"{name}/{split} was cropped by {crop}, but protocol {protocol.id} takes {protocol.crop}")
    return data
