"""Hi-MAR's masked transformer: few tokens of a small image first, then those of the image (arXiv 2505.20288)."""

import torch
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from reference_impls.layers.mar_backbone import EPS, table
from reference_impls.layers.mar_sampling import picked

__all__ = ["HimarBackbone"]

SMALL, LARGE = 0, 1
"""The two tasks, which have positions, mask tokens and modulations of their own."""


class TaskBlock(nn.Module):
    """A transformer block whose norms and residuals are scaled by what its task asks for."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, num_heads=heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, 4 * width)
        self.adaLN_scale = nn.Parameter(torch.ones(2, 1, 1, 4 * width))
        self.adaLN_shift = nn.Parameter(torch.zeros(2, 1, 1, 4 * width))

    def forward(self, x: Tensor, shared: Tensor, task: int) -> Tensor:
        """Tokens `(B, n, W)` to tokens; `shared` `(4 W,)` is the same in all blocks."""
        scale1, gate1, scale2, gate2 = (shared * self.adaLN_scale[task] + self.adaLN_shift[task]).chunk(4, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1.0 + scale1))
        out: Tensor = x + gate2 * self.mlp(self.norm2(x) * (1.0 + scale2))
        return out


class HimarBackbone(nn.Module):
    """An encoder of the tokens that are known, a decoder of all of them, under the release's key names.

    Places are those of the S small tokens, then those of the N large ones. In front are `buffer_size` tokens, which
    the encoder begins with the condition.

    Args:
        small: Tokens of the small image, S.
        length: Tokens of the image, N.
        channels: Channels of a token, C.
        classes: Number of classes.
        buffer_size: Number of tokens in front.
        encoder_dim: Width of the encoder, W.
        encoder_depth: Its blocks.
        encoder_heads: Attention heads of each.
        decoder_dim: Width of the decoder, D.
        decoder_depth: Its blocks.
        decoder_heads: Attention heads of each.
    """

    def __init__(
        self,
        *,
        small: int,
        length: int,
        channels: int,
        classes: int,
        buffer_size: int,
        encoder_dim: int,
        encoder_depth: int,
        encoder_heads: int,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
    ) -> None:
        super().__init__()
        self.small, self.length, self.buffer_size = small, length, buffer_size
        total = small + length
        self.class_emb = nn.Embedding(classes, encoder_dim)
        self.fake_latent = table(1, encoder_dim)
        # The release has these, and neither stage looks at them when it samples.
        self.cond_tokens = table(1, small, channels)
        self.z_proj = nn.Linear(channels, encoder_dim)
        self.z_proj_ln = nn.LayerNorm(encoder_dim, eps=EPS)
        self.cond_proj = nn.Linear(channels, encoder_dim)
        self.cond_z_proj = nn.Linear(decoder_dim, encoder_dim)
        self.encoder_pos_embed_learned = table(1, 2 * (buffer_size + total), encoder_dim)
        self.encoder_blocks = nn.ModuleList(TaskBlock(encoder_dim, encoder_heads) for _ in range(encoder_depth))
        self.encoder_task_emb = nn.Embedding(2, encoder_dim)
        self.encoder_blocks_ada = nn.Sequential(nn.SiLU(), nn.Linear(encoder_dim, 4 * encoder_dim))
        self.encoder_norm = nn.LayerNorm(encoder_dim, eps=EPS)
        self.decoder_embed = nn.Linear(encoder_dim, decoder_dim)
        self.mask_token = table(1, 2 * total, decoder_dim)
        self.decoder_pos_embed_learned = table(1, 2 * (buffer_size + total), decoder_dim)
        self.decoder_blocks = nn.ModuleList(TaskBlock(decoder_dim, decoder_heads) for _ in range(decoder_depth))
        self.decoder_task_emb = nn.Embedding(2, decoder_dim)
        self.decoder_blocks_ada = nn.Sequential(nn.SiLU(), nn.Linear(decoder_dim, 4 * decoder_dim))
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=EPS)
        self.diffusion_pos_embed_learned = table(1, total, decoder_dim)

    def small_features(self, tokens: Tensor, visible: Tensor, conditions: Tensor) -> Tensor:
        """Features `(B, S + N, D)` where of the small tokens `(B, S, C)` the `visible` `(B, n)` are known."""
        shown = self.cond_proj(picked(tokens, visible))
        return self._features(SMALL, shown, visible, conditions)

    def large_features(self, small: Tensor, tokens: Tensor, visible: Tensor, conditions: Tensor) -> Tensor:
        """The same where all small ones are known, and of the large tokens `(B, N, C)` those at `visible` `(B, n)`.

        `small` `(B, S, W)` are the small ones as `from_states` or `cond_proj` embeds them.
        """
        shown = torch.cat([small, self.z_proj(picked(tokens, visible))], dim=1)
        first = torch.arange(self.small, device=visible.device).expand(len(visible), -1)
        return self._features(LARGE, shown, torch.cat([first, visible + self.small], dim=1), conditions)

    def from_states(self, features: Tensor) -> Tensor:
        """The small image for `large_features`, `(B, S, W)`, of what `small_features` gave."""
        out: Tensor = self.cond_z_proj(features[:, : self.small])
        return out

    def _features(self, task: int, shown: Tensor, places: Tensor, conditions: Tensor) -> Tensor:
        """Encode embedded tokens `(B, n, W)` at `places` `(B, n)`, and decode all."""
        positions = _half(self.encoder_pos_embed_learned, task)
        buffer = conditions.unsqueeze(1) + positions[:, : self.buffer_size]
        x = torch.cat([buffer, shown + positions[0, self.buffer_size :][places]], dim=1)
        x = self.z_proj_ln(x)
        shared = self.encoder_blocks_ada(self.encoder_task_emb.weight[task])
        for block in self.encoder_blocks:
            x = block(x, shared, task)
        x = self.decoder_embed(self.encoder_norm(x))

        masked = _half(self.mask_token, task).to(x.dtype).expand(len(x), -1, -1)
        known = places.unsqueeze(-1).expand(-1, -1, x.shape[2])
        x = torch.cat([x[:, : self.buffer_size], masked.scatter(1, known, x[:, self.buffer_size :])], dim=1)
        x = x + _half(self.decoder_pos_embed_learned, task)
        shared = self.decoder_blocks_ada(self.decoder_task_emb.weight[task])
        for block in self.decoder_blocks:
            x = block(x, shared, task)
        out: Tensor = self.decoder_norm(x)[:, self.buffer_size :] + self.diffusion_pos_embed_learned
        return out


def _half(table: Tensor, task: int) -> Tensor:
    """A task's part of a table `(1, 2 n, W)`: `(1, n, W)`."""
    return table.chunk(2, dim=1)[task]
