"""The transformers of Semanticist (arXiv 2503.08685, section 3), under the release's key names."""

import torch
from timm.layers.norm import LayerNorm
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from reference_impls.layers.dit_blocks import DiTBlock, FinalLayer, TimestepEmbedder, grid_sincos, unpatchify

__all__ = ["Places", "SlotDiT", "SlotEncoder"]


class Places(nn.Module):
    """Which slots are kept, from a table that the release's checkpoints hold."""

    arange: Tensor

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.register_buffer("arange", torch.arange(slots))

    def forward(self, lengths: Tensor) -> Tensor:
        """The first of them: `(B,)` to `(B, N)`."""
        return self.arange < lengths[:, None]


class SlotEncoder(nn.Module):
    """A vision transformer that reads an image's patches into slots.

    Args:
        image_size: Side of the images, in pixels.
        patch_size: Side of a patch, in pixels.
        width: Channels.
        depth: Blocks.
        heads: Attention heads.
        slots: Number of slots, N.
        causal: Whether a slot sees only the slots before it, and patches see none.
    """

    def __init__(
        self, *, image_size: int, patch_size: int, width: int, depth: int, heads: int, slots: int, causal: bool
    ) -> None:
        super().__init__()
        self.slots = slots
        self.patch_embed = PatchEmbed(image_size, patch_size, 3, width)
        others = 1 + self.patch_embed.num_patches
        self.cls_token = _drawn(1, 1, width)
        self.pos_embed = _drawn(1, others + slots, width)
        self.slot_embed = _drawn(1, slots, width)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        self.norm = LayerNorm(width)
        mask = torch.ones(others + slots, others + slots, dtype=torch.bool).tril()
        mask[:, :others] = True
        self.register_buffer("mask", mask if causal else None, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] to features `(B, N, width)`."""
        parts = [self.cls_token, self.patch_embed(images), self.slot_embed]
        x = torch.cat([part.expand(len(images), -1, -1) for part in parts], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x, attn_mask=self.mask)
        out: Tensor = self.norm(x)[:, -self.slots :]
        return out


class SlotDiT(nn.Module):
    """A diffusion transformer over VAE latents, with the slots behind its patches.

    Args:
        grid: Side of the latents.
        channels: Of the latents, C.
        patch_size: Latents per side of a patch.
        width: Channels of the transformer.
        depth: Blocks.
        heads: Attention heads.
        slots: Number of slots.
        slot_dim: Channels of a slot.
    """

    def __init__(
        self,
        *,
        grid: int,
        channels: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        slots: int,
        slot_dim: int,
    ) -> None:
        super().__init__()
        self.patch_size, self.side = patch_size, grid // patch_size
        self.pos_embed = nn.Parameter(grid_sincos(width, self.side)[None], requires_grad=False)
        self.null_cond = _drawn(1, slots, slot_dim)
        self.x_embedder = PatchEmbed(grid, patch_size, channels, width)
        self.t_embedder = TimestepEmbedder(width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.final_layer = FinalLayer(width, 2 * channels * patch_size**2)
        self.autoenc_cond_embedder = nn.Linear(slot_dim, width)

    def told(self, slots: Tensor, keep: Tensor) -> Tensor:
        """Slots `(B, N, slot_dim)` as tokens; where `keep` `(B, N)` is False the learned blank stands instead."""
        tokens: Tensor = self.autoenc_cond_embedder(torch.where(keep[..., None], slots, self.null_cond))
        return tokens

    def untold(self, batch: int) -> Tensor:
        """The tokens of no slots at all."""
        tokens: Tensor = self.autoenc_cond_embedder(self.null_cond)
        return tokens.expand(batch, -1, -1)

    def forward(self, x: Tensor, times: Tensor, told: Tensor) -> Tensor:
        """Noisy latents `(B, C, h, w)`, training steps `(B,)` and slots' tokens to noise and variance."""
        patches = self.x_embedder(x.to(self.null_cond.dtype)) + self.pos_embed
        hidden, condition = torch.cat([patches, told.to(patches.dtype)], dim=1), self.t_embedder(times)
        for block in self.blocks:
            hidden = block(hidden, condition)
        return unpatchify(self.final_layer(hidden[:, : patches.shape[1]], condition), self.patch_size, self.side)


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=0.02))
