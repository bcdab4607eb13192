"""RAR's transformer: causal, with a target-aware table of positions and a condition of its own at every place.

The network of "Randomized Autoregressive Visual Generation" (arXiv 2411.00776), under the keys of its release
(modeling/rar.py of bytedance/1d-tokenizer).
"""

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.bert import embedding_table
from reference_impls.layers.dit_blocks import modulation

__all__ = ["KeyValues", "RarTransformer"]

EPS = 1e-6
PREFIX = 2
"""Rows in front of the tokens: the learned one and the class."""
SPARE_POSITIONS, SPARE_TIMES = 1024, 100
"""By how much the release's tables are longer than an image; what lies behind the sequence is never read."""


class KeyValues:
    """The keys and values that one attention layer has seen, in room for `length` places.

    Args:
        length: The most places.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._room: Tensor | None = None

    def extended(self, new: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Keep `new` keys and values `(2, B, H, n, d)` of the places from `start` on; those of all places so far."""
        end = start + new.shape[3]
        if self._room is None:
            self._room = new.new_empty(*new.shape[:3], self._length, new.shape[4])
        self._room[:, :, :, start:end] = new
        return self._room[0, :, :, :end], self._room[1, :, :, :end]


class RarAttention(nn.Module):
    """Causal self-attention whose queries and keys are normalised per head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = (nn.LayerNorm(width // heads, eps=EPS) for _ in range(2))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, start: int, cache: KeyValues | None, *, causal: bool) -> Tensor:
        """`(B, n, D)` at the places from `start` on, to the same shape; behind a start above 0 only one place.

        Whether the attention is `causal`, which it need not be told of one place, is no comparison made here, because
        a compiler would take its outcome for a number that is not known yet.
        """
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Under autocast norms give float32, which is more than the cache has to keep.
        query, key = (norm(part).to(value.dtype) for norm, part in ((self.q_norm, query), (self.k_norm, key)))
        if cache is not None:
            key, value = cache.extended(torch.stack([key, value]), start)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class RarBlock(nn.Module):
    """Pre-norm block; the condition of a place shifts, scales and gates both of its branches there."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=EPS) for _ in range(2))
        self.attn = RarAttention(width, heads)
        self.mlp = Mlp(width, hidden)
        self.adaLN_modulation = modulation(width, 6)

    def forward(self, x: Tensor, condition: Tensor, start: int, cache: KeyValues | None, *, causal: bool) -> Tensor:
        """Tokens and conditions, both `(B, n, D)`, to tokens."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1.0 + scale1) + shift1, start, cache, causal=causal)
        out: Tensor = x + gate2 * self.mlp(self.norm2(x) * (1.0 + scale2) + shift2)
        return out


class RarFinal(nn.Module):
    """The norm before the head, scaled and shifted per place; the scale comes first, unlike in the blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.adaLN_modulation = modulation(width, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens and conditions, both `(B, n, D)`, to tokens."""
        scale, shift = self.adaLN_modulation(condition).chunk(2, dim=-1)
        out: Tensor = self.norm_final(x) * (1.0 + scale) + shift
        return out


class RarTransformer(nn.Module):
    """What predicts an image's codes one after the other, in any order.

    A sequence is a learned row, the class, and the codes. Ids are: K codes, one that is never used, class y as
    K + 1 + y, and last the dropped class. Dropout, which is for training, is left out.

    Args:
        codebook_size: Number of codes, K.
        image_seq_len: Codes of an image, L.
        condition_num_classes: Number of classes.
        hidden_size: Width, D.
        num_hidden_layers: Blocks.
        num_attention_heads: Heads of a block.
        intermediate_size: Hidden width of the MLPs.
    """

    def __init__(
        self,
        *,
        codebook_size: int,
        image_seq_len: int,
        condition_num_classes: int,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        intermediate_size: int,
    ) -> None:
        super().__init__()
        self.codebook_size, self.image_seq_len, self.classes = codebook_size, image_seq_len, condition_num_classes
        width, positions = hidden_size, image_seq_len + SPARE_POSITIONS
        self.cls_token = _table(1, width)
        self.pos_embed = _table(positions, width)
        self.target_aware_pos_embed = _table(positions, width)
        self.timesteps_embeddings = _table(image_seq_len + SPARE_TIMES, width)
        blocks = (RarBlock(width, num_attention_heads, intermediate_size) for _ in range(num_hidden_layers))
        self.blocks = nn.ModuleList(blocks)
        self.embeddings = embedding_table(codebook_size + 1 + condition_num_classes + 1, width)
        self.adaln_before_head = RarFinal(width)
        self.lm_head = nn.Linear(width, codebook_size)

    def forward(self, codes: Tensor, classes: Tensor, orders: Tensor | None = None) -> Tensor:
        """Logits `(B, n + 1, K)`: of the first code, and of the one behind each of `codes` `(B, n)`, the last too.

        Codes are those of the first n places of the raster; or, with `orders` `(B, L)`, which says where each place
        of the sequence lies in the raster, all L of them, still in raster order. Class `condition_num_classes` is the
        dropped one.
        """
        if orders is not None:
            codes = codes.gather(1, orders)
        begun = self.begun(classes)
        rows = torch.cat([begun, self.embeddings(codes)], dim=1)
        hidden, condition = self.run(rows, begun[:, 1:], self.places(orders), 0)
        logits: Tensor = self.lm_head(self.adaln_before_head(hidden[:, 1:], condition[:, 1:]))
        return logits

    def begun(self, classes: Tensor) -> Tensor:
        """The two rows that every sequence begins with, the learned one and the class: `(B, 2, D)`."""
        embedded = self.embeddings(classes + self.codebook_size + 1)[:, None]
        return torch.cat([self.cls_token.expand(len(classes), -1, -1), embedded], dim=1)

    def places(self, orders: Tensor | None = None) -> Tensor:
        """What is added to a sequence: `(B, 2 + L, D)`, or with a batch of 1 without `orders`, in raster order.

        A place gets its own row, and that of the place behind it from the target-aware table, so that it knows which
        one it is to predict. Of the latter there is none for the learned row in front and for the last code.
        """
        if orders is None:
            orders = torch.arange(self.image_seq_len, device=self.pos_embed.device)[None]
        prefix = self.pos_embed[:, :PREFIX].expand(len(orders), -1, -1)
        own = torch.cat([prefix, self.pos_embed[0, PREFIX + orders]], dim=1)
        return own + functional.pad(self.target_aware_pos_embed[0, PREFIX + orders], (0, 0, 1, 1))

    def run(
        self, rows: Tensor, embedded: Tensor, places: Tensor, start: int, caches: list[KeyValues] | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the last block gives for embedded `rows` `(B, n, D)` of a sequence from `start` on, and its condition.

        The condition is the class's embedding `(B, 1, D)` with the row of the time, which is the place in the
        sequence, whatever the order.
        """
        end = start + rows.shape[1]
        condition = embedded + self.timesteps_embeddings[:, start:end]
        hidden = rows + places[:, start:end]
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, condition, start, None if caches is None else caches[index], causal=start == 0)
        return hidden, condition

    def next_logits(
        self, rows: Tensor, embedded: Tensor, places: Tensor, start: int, caches: list[KeyValues]
    ) -> Tensor:
        """Logits `(B, K)` behind the last of `rows`; arguments as of `run`."""
        hidden, condition = self.run(rows, embedded, places, start, caches)
        logits: Tensor = self.lm_head(self.adaln_before_head(hidden[:, -1:], condition[:, -1:]))[:, 0]
        return logits

    def caches(self) -> list[KeyValues]:
        """Empty ones for every block, with room for a whole sequence but its last code, which nothing reads."""
        return [KeyValues(PREFIX + self.image_seq_len - 1) for _ in self.blocks]


def _table(rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, rows, width), std=0.02))
