"""The number types that a protocol wants in force."""

import contextlib
from collections.abc import Iterator

import torch

from tokenmark.protocols import Protocol


@contextlib.contextmanager
def number_types(protocol: Protocol) -> Iterator[None]:
    """TF32 as the protocol says, whatever the caller had set: libraries leave it as they find it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = protocol.tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
