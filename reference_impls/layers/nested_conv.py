"""The autoencoder of latent diffusion with exits: one network whose latents may have one of several resolutions."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.ldm_conv import LdmDecoder, LdmEncoder, LdmSize

__all__ = ["NestedDecoder", "NestedEncoder"]


def _matching(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1)


class NestedEncoder(LdmEncoder):
    """Images to latents at the resolution of any of `exits`: the levels beyond it are not run.

    All exits share the middle and the last convolution; 1x1 convolutions match their channels to the coarsest's.

    Args:
        size: Sizes of the network.
        exits: Levels, 0 the finest, whose output can be the last.
        out_channels: Channels that come out.
    """

    def __init__(self, size: LdmSize, exits: Collection[int], out_channels: int) -> None:
        super().__init__(size, (), out_channels)
        widths = [size.ch * factor for factor in size.ch_mult]
        early = (level for level in exits if level != size.levels - 1)
        self.exits = nn.ModuleDict({str(level): _matching(widths[level], widths[-1]) for level in early})

    def forward(self, images: Tensor, level: int | None = None) -> Tensor:
        """Images `(B, 3, H, W)` to `(B, out_channels, H / 2**level, W / 2**level)`; the coarsest if none is given."""
        last = len(self.down) - 1 if level is None else level
        hidden = self.conv_in(images)
        levels: list[Any] = list(self.down)
        for part in levels[:last]:
            hidden = part.downsample(part(hidden))
        hidden = levels[last](hidden)
        if str(last) in self.exits:
            hidden = self.exits[str(last)](hidden)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(hidden))))
        return out


class NestedDecoder(LdmDecoder):
    """Latents at the resolution of any of `entries` to images; the mirror of `NestedEncoder`.

    Args:
        size: Sizes of the network.
        entries: Levels, 0 the finest, at which latents may come in.
    """

    def __init__(self, size: LdmSize, entries: Collection[int]) -> None:
        super().__init__(size, ())
        widths: Sequence[int] = [size.ch * factor for factor in size.ch_mult]
        early = (level for level in entries if level != size.levels - 1)
        self.entries = nn.ModuleDict({str(level): _matching(widths[-1], widths[level + 1]) for level in early})

    def forward(self, latents: Tensor, level: int | None = None) -> Tensor:
        """Latents `(B, z_channels, h, w)` to images `(B, 3, h * 2**level, w * 2**level)`."""
        first = len(self.up) - 1 if level is None else level
        hidden = self.mid(self.conv_in(latents))
        if str(first) in self.entries:
            hidden = self.entries[str(first)](hidden)
        levels: list[Any] = list(self.up)
        for part in reversed(levels[1 : first + 1]):
            hidden = part.upsample(part(hidden))
        hidden = levels[0](hidden)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(hidden)))
        return out
