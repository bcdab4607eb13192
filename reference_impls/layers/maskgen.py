"""MaskGen: from text to TA-TiTok's tokens (arXiv 2501.07730, section 3.3), codes or continuous latents.

Nothing here reads text: the states of CLIP's text tower (ViT-L/14 at 336 pixels; those before its last block, and its
projected pooled embedding) are inputs.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reference_impls.layers.denoising_mlp import DenoisingMLP
from reference_impls.layers.dit_blocks import EPS
from reference_impls.layers.joint_blocks import JOINT, JointBlock, ScaledNorm
from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import Layout

__all__ = ["LAYOUT", "MaskGenKL", "MaskGenVQ", "Text", "repeated_text", "score_features"]

Entering = Callable[[int, Tensor, Tensor], None]
"""Sees a block's place, and the tokens `(B, N, D)` and the text `(B, T, D)` that enter it."""
SCORE_FACTOR = 100.0
"""What an aesthetic score is multiplied by before it is encoded."""
PERIODS = {"vq": 1000.0, "kl": 10000.0}
"""The longest period of its encoding."""

LAYOUT = Layout(
    renames=(
        *JOINT,
        (r"^text_pooled_emb\.", "cond_pooled_proj."),
        (r"^text_emb\.", "text_embed_proj."),
        (r"^decoder_blocks\.", "blocks."),
        (r"^decoder_norm\.", "norm."),
        (r"^decoder_pos_embed_learned$", "pos_embed"),
        (r"^diffloss\.net\.", "head."),
    )
)
"""The release's keys to ours; both forms share the names of the first."""


class Text(NamedTuple):
    """What images are to show."""

    states: Tensor
    """Of the text's tokens, before the tower's last block: `(B, T, E)`."""
    pooled: Tensor
    """Of the whole text, projected: `(B, E)`."""
    scores: Tensor
    """Aesthetic scores that images are to have, `(B,)`."""


def repeated_text(text: Text, empty: Text) -> Text:
    """`text`, and behind it as many times the `empty` one, with the text's own scores."""
    count = len(text.states)
    return Text(
        torch.cat([text.states, empty.states.expand(count, -1, -1)]),
        torch.cat([text.pooled, empty.pooled.expand(count, -1)]),
        text.scores.repeat(2),
    )


def score_features(scores: Tensor, width: int, period: float, *, interleaved: bool) -> Tensor:
    """Sines and cosines of 100 times `scores` `(B,)`: `(B, width)`, of their number type.

    The frequencies fall from 1 to almost 1 / `period`. Sines, then cosines, or in turns if `interleaved`.
    """
    places = torch.arange(width // 2, dtype=scores.dtype, device=scores.device) / (width // 2)
    angles = SCORE_FACTOR * scores.unsqueeze(1) * torch.exp(-math.log(period) * places)
    return torch.stack([angles.sin(), angles.cos()], dim=2 if interleaved else 1).flatten(1)


class TextToTokens(nn.Module):
    """The joint transformer that both forms have.

    Args:
        length: Tokens of an image, N.
        width: Channels, D.
        depth: Number of blocks.
        heads: Attention heads of each.
        text_channels: Of the text's states and of its pooled embedding, E.
        score_width: Channels of an encoded score.
        form: "vq" or "kl", which encode scores otherwise.
    """

    def __init__(
        self, *, length: int, width: int, depth: int, heads: int, text_channels: int, score_width: int, form: str
    ) -> None:
        super().__init__()
        self.length, self.score_width, self.form = length, score_width, form
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, length, width), std=0.02))
        self.text_embed_proj = nn.Linear(text_channels, width)
        self.cond_pooled_proj = nn.Linear(text_channels + score_width, width)
        self.blocks = nn.ModuleList(JointBlock(width, heads, last=block == depth - 1) for block in range(depth))
        self.norm = ScaledNorm(width)

    def encoded_scores(self, scores: Tensor) -> Tensor:
        """`(B,)` to `(B, score_width)`."""
        scores = at_least_float32(scores)
        return score_features(scores, self.score_width, PERIODS[self.form], interleaved=self.form == "kl")

    def read(self, text: Text) -> tuple[Tensor, Tensor]:
        """The text's states `(B, T, D)`, and what modulates the blocks, `(B, D)`; both stay while an image is made."""
        number_type = self.text_embed_proj.weight.dtype
        pooled = torch.cat([text.pooled.to(number_type), self.encoded_scores(text.scores).to(number_type)], dim=1)
        return self.text_embed_proj(text.states.to(number_type)), self.cond_pooled_proj(pooled)

    def run(self, x: Tensor, read: tuple[Tensor, Tensor], entering: Entering | None = None) -> Tensor:
        """Embedded tokens `(B, N, D)` to normed ones, given what `read` gave; `entering` sees what every block does."""
        told, condition = read
        x = x + self.pos_embed
        for index, block in enumerate(self.blocks):
            if entering is not None:
                entering(index, x, told)
            x, told = block(x, told, condition)
        out: Tensor = self.norm(x, condition)
        return out


class TiedHead(nn.Module):
    """Logits of the first `codes` rows of a table of embeddings."""

    def __init__(self, table: nn.Embedding, codes: int) -> None:
        super().__init__()
        self.weight, self.codes = table.weight, codes

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, D)` to `(B, N, K)`."""
        return x @ self.weight[: self.codes].T


class MaskGenVQ(TextToTokens):
    """Codes: a masked transformer.

    Args:
        codebook_size: Number of codes, K; the mask is code K.
        condition_num_classes: Rows of the table that were classes in a model before this one, and have no use here.
        sizes: Arguments of `TextToTokens`.
    """

    def __init__(self, *, codebook_size: int, condition_num_classes: int, **sizes: Any) -> None:
        super().__init__(form="vq", **sizes)
        self.codebook_size = codebook_size
        self.embeddings = nn.Embedding(codebook_size + 1 + condition_num_classes + 1, sizes["width"])
        nn.init.trunc_normal_(self.embeddings.weight, std=0.02)
        self.lm_head = TiedHead(self.embeddings, codebook_size)

    def forward(self, codes: Tensor, read: tuple[Tensor, Tensor], entering: Entering | None = None) -> Tensor:
        """Logits `(B, N, K)` of codes `(B, N)`; further arguments as of `run`."""
        logits: Tensor = self.lm_head(self.run(self.embeddings(codes), read, entering))
        return logits


class MaskGenKL(TextToTokens):
    """Continuous latents: MAR (arXiv 2406.11838) without its encoder, the masked ones drawn by a diffusion head.

    Args:
        channels: Of a latent, C.
        diffloss_d: Residual blocks of the head.
        diffloss_w: Its width.
        latent_scale: What latents were multiplied by before they were learned.
        sizes: Arguments of `TextToTokens`.
    """

    def __init__(self, *, channels: int, diffloss_d: int, diffloss_w: int, latent_scale: float, **sizes: Any) -> None:
        super().__init__(form="kl", **sizes)
        width = sizes["width"]
        self.latent_scale = latent_scale
        self.mask_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, width), std=0.02))
        self.diffusion_pos_embed_learned = nn.Parameter(nn.init.normal_(torch.empty(1, self.length, width), std=0.02))
        self.z_proj = nn.Linear(channels, width)
        self.z_proj_ln = nn.LayerNorm(width, eps=EPS)
        self.head = DenoisingMLP(channels, width, diffloss_w, diffloss_d)

    def features(self, latents: Tensor, visible: Tensor, read: tuple[Tensor, Tensor]) -> Tensor:
        """Features `(B, N, D)` of latents `(B, N, C)`, of which those at `visible` `(B, n)` are looked at."""
        shown = torch.zeros(latents.shape[:2], dtype=torch.bool, device=latents.device).scatter(1, visible, True)
        known = self.z_proj_ln(self.z_proj(latents))
        return (
            self.run(torch.where(shown.unsqueeze(2), known, self.mask_token), read) + self.diffusion_pos_embed_learned
        )
