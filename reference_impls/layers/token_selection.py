"""Which tokens a masked generator keeps: rules, a critic that reads the text, and groups by self-attention.

TCTS and FAS (arXiv 2304.01515), as far as the paper's text fixes them; the network of the critic and how it is trained
are inferred (Token-Critic, arXiv 2209.04439, with attention to the text).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.joint_blocks import JointBlock
from reference_impls.layers.masked_sampling import mask_ratio
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.text_unet import TextBlock

__all__ = ["TokenSelector", "image_attention", "kept_places", "masked_counts", "purity", "smooth_places"]


def masked_counts(length: int, steps: int) -> list[int]:
    """How many of `length` tokens are masked behind each step: by the arccos schedule, and none at the end.

    Every step leaves fewer than the one before it, as long as there are any, but for the last one.
    """
    counts, masked = [], length
    for step in range(steps - 1):
        masked = max(1, min(masked - 1, math.floor(length * mask_ratio((step + 1) / steps))))
        counts.append(masked)
    return [*counts, 0]


def kept_places(scores: Tensor, count: int) -> Tensor:
    """Where the `count` greatest of scores `(B, N)` are, of equal ones the earlier: bool `(B, N)`."""
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)


def purity(logits: Tensor) -> Tensor:
    """How sure a prediction is: the greatest probability of `(B, N, K)`, as its logarithm, `(B, N)`."""
    return logits.log_softmax(-1).amax(-1)


class TokenSelector(nn.Module):
    """A critic of predicted codes that reads the text (inferred: see the module).

    Args:
        codebook_size: Number of codes, K.
        length: Tokens of an image, N.
        text_channels: Of the text's states, E.
        width: Channels, D.
        depth: Number of blocks.
        heads: Attention heads of each.
    """

    def __init__(
        self, *, codebook_size: int, length: int, text_channels: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(codebook_size, width)
        self.pos_embed = nn.Parameter(torch.empty(1, length, width))
        for table in (self.embeddings.weight, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)
        self.blocks = nn.ModuleList(TextBlock(width, text_channels, width // heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)

    def forward(self, codes: Tensor, states: Tensor) -> Tensor:
        """Logits `(B, N)`, float32 at least, that codes `(B, N)` are to stay, given a text's states `(B, T, E)`."""
        hidden, told = self.embeddings(codes) + self.pos_embed, states.to(self.pos_embed.dtype)
        for block in self.blocks:
            hidden = block(hidden, told)
        return at_least_float32(self.head(self.norm(hidden)).squeeze(2))

    def loss(self, codes: Tensor, sampled: Tensor, masked: Tensor, states: Tensor) -> Tensor:
        """Cross-entropy of telling an image's own codes from a generator's, a scalar.

        Args:
            codes: The image's, `(B, N)`.
            sampled: What the generator drew where they were masked, `(B, N)`; read there only.
            masked: Where, bool `(B, N)`.
            states: The text's, `(B, T, E)`.
        """
        logits = self(torch.where(masked, sampled, codes), states)
        return functional.binary_cross_entropy_with_logits(logits, (~masked).to(logits))


def image_attention(block: JointBlock, x: Tensor, text: Tensor, condition: Tensor) -> Tensor:
    """Where an image's tokens look among themselves in a block that they enter: `(B, N, N)`, rows sum to 1.

    A mean over heads; what goes to the text is left out.
    """
    attention, both = block.attn, block.norm1_context(text, condition)
    normed, told = block.norm1(x, condition)[0], both if isinstance(both, Tensor) else both[0]
    keys = torch.cat([attention.to_k(normed), attention.add_k_proj(told)], dim=1)
    query, key = (
        at_least_float32(part).unflatten(2, (attention.heads, -1)).transpose(1, 2)
        for part in (attention.to_q(normed), keys)
    )
    rows = (query @ key.transpose(2, 3) * query.shape[3] ** -0.5).softmax(-1).mean(1)[:, :, : x.shape[1]]
    out: Tensor = rows / rows.sum(-1, keepdim=True)
    return out


def smooth_places(attention: Tensor, share: float) -> Tensor:
    """The `share` of positions whose attention `(B, N, N)` is the widest, by its entropy: bool `(B, N)`.

    They are taken for those of large, smooth areas, whose tokens look at many others that are like them.
    """
    entropies = -torch.special.xlogy(attention, attention).sum(-1)
    return kept_places(entropies, math.ceil(share * attention.shape[1]))
