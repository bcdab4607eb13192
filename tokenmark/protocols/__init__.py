"""Named, versioned protocols: everything around a method that can move its numbers."""

from tokenmark.errors import chosen
from tokenmark.protocols.base import Protocol
from tokenmark.protocols.imagenet import IMAGENET
from tokenmark.protocols.libraries import LIBRARIES
from tokenmark.protocols.mini import MINI
from tokenmark.protocols.throughput import STRUCTURE, THROUGHPUT

PROTOCOLS = {protocol.id: protocol for protocol in (MINI, *IMAGENET, *LIBRARIES, THROUGHPUT, STRUCTURE)}


def get(name: str) -> Protocol:
    """The protocol called `name`.

    Raises:
        UnknownNameError: there is none of that name.
    """
    return chosen("protocol", name, PROTOCOLS)


__all__ = ["PROTOCOLS", "Protocol", "get"]
