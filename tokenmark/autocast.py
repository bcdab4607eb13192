"""The precision in which a protocol wants encoders, samplers and decoders to run."""

import torch

from tokenmark.protocols import Protocol


def autocast(protocol: Protocol, device: torch.device) -> torch.autocast:
    """A context in which a model runs as the protocol says; weights stay as they are."""
    return torch.autocast(device.type, torch.bfloat16, enabled=protocol.model_precision == "bfloat16-autocast")
