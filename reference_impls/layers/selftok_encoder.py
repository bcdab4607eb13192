"""Selftok's encoder: queries of their own width gather an image's latents, and become codes by cosine."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.dit_blocks import EPS, TimestepEmbedder, grid_sincos, modulation
from reference_impls.layers.mmdit import PATCH, gelu_mlp, token_positions
from reference_impls.layers.precision import at_least_float32

__all__ = ["CosineCodebook", "QueryEncoder"]


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=EPS, elementwise_affine=False)


class DualAttention(nn.Module):
    """Patches attend to patches; queries attend to patches and queries.

    Args:
        width: Channels of the patches.
        heads: Heads of their attention.
        query_width: Channels of the queries.
        query_heads: Heads of theirs.
    """

    def __init__(self, width: int, heads: int, query_width: int, query_heads: int) -> None:
        super().__init__()
        self.heads, self.query_heads = heads, query_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.to_query_kv = nn.Linear(width, 2 * query_width)
        self.query_linear = nn.Linear(query_width, 3 * query_width)
        self.proj = nn.Linear(width, width)
        self.query_proj = nn.Linear(query_width, query_width)

    def forward(self, patches: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, P, width)` and `(B, K, query_width)` to the same."""
        own = _split(self.qkv(patches), 3, self.heads)
        mixed = functional.scaled_dot_product_attention(own[0], own[1], own[2])
        key, value = _split(self.to_query_kv(patches), 2, self.query_heads)
        query, own_key, own_value = _split(self.query_linear(queries), 3, self.query_heads)
        key, value = torch.cat([key, own_key], dim=2), torch.cat([value, own_value], dim=2)
        gathered = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2)), self.query_proj(gathered.transpose(1, 2).flatten(2))


def _split(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """`(B, L, parts * D)` to `parts` tensors `(B, heads, L, d)`."""
    split: Tensor = x.unflatten(2, (parts, heads, -1))
    return split.permute(2, 0, 3, 1, 4).unbind(0)


class DualBlock(nn.Module):
    """A block of both streams; a query's position shifts, scales and gates it.

    Args:
        width: Channels of the patches.
        heads: Heads of their attention.
        query_width: Channels of the queries.
        query_heads: Heads of theirs.
    """

    def __init__(self, width: int, heads: int, query_width: int, query_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.q_norm1, self.q_norm2 = _norm(query_width), _norm(query_width)
        self.attn = DualAttention(width, heads, query_width, query_heads)
        self.mlp, self.q_mlp = gelu_mlp(width), gelu_mlp(query_width)
        self.adaLN_modulation = modulation(query_width, 6)
        self.t_embedder = TimestepEmbedder(query_width)

    def forward(self, patches: Tensor, queries: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, P, width)` and `(B, K, query_width)` to the same; `places` `(K,)` are the queries' positions."""
        parts = self.adaLN_modulation(self.t_embedder(places))
        shift1, scale1, gate1, shift2, scale2, gate2 = parts.chunk(6, dim=1)
        seen, gathered = self.attn(self.norm1(patches), self.q_norm1(queries) * (1.0 + scale1) + shift1)
        patches = patches + seen
        patches = patches + self.mlp(self.norm2(patches))
        queries = queries + gate1 * gathered
        queries = queries + gate2 * self.q_mlp(self.q_norm2(queries) * (1.0 + scale2) + shift2)
        return patches, queries


class CosineCodebook(nn.Module):
    """The code with the largest dot product with the normalised, projected latent.

    Stored codes have unit length by their training and are not normalised again. The other buffers are the training's
    state, which a checkpoint carries along.

    Args:
        inputs: Channels of the latents.
        codebook_size: Number of codes.
        dim: Channels of a code.
        tokens: Number of tokens, over whose places the training counts each code's use.
    """

    embed: Tensor

    def __init__(self, inputs: int, codebook_size: int, dim: int, tokens: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(inputs, dim)
        codes = functional.normalize(torch.randn(1, codebook_size, dim), dim=-1)
        self.register_buffer("embed", codes)
        state = {
            "continuous": torch.zeros(1),
            "steps": torch.zeros(1),
            "count": torch.zeros(1, codebook_size),
            "initted": torch.ones(1),
            "cluster_size": torch.zeros(1, codebook_size),
            "cluster_size_wo_react": torch.zeros(1, codebook_size),
            "embed_avg": codes.clone(),
            "timestep_p_over_c": torch.full((1, tokens, codebook_size), 1.0 / codebook_size),
            "tpc_initted": torch.zeros(1),
        }
        for name, value in state.items():
            self.register_buffer(name, value)

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.embed.shape[1]

    def codes(self, projected: Tensor) -> Tensor:
        """Codes `(B, K)` of projected latents `(B, K, dim)`; ties go to the lowest."""
        with torch.autocast(projected.device.type, enabled=False):
            directions = functional.normalize(at_least_float32(projected), dim=-1)
            return (directions @ at_least_float32(self.embed[0]).to(directions).T).argmax(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Rows `(B, K, dim)` of int64 codes `(B, K)`."""
        return functional.embedding(codes, self.embed[0])


class QueryEncoder(nn.Module):
    """Latents of an image to queries, and queries to codes and back.

    Args:
        channels: Of the latents.
        side: Of the latents.
        tokens: Number of queries.
        dim: Channels of the patches.
        heads: Heads of their attention.
        depth: Number of blocks.
        query_dim: Channels of the queries.
        query_heads: Heads of theirs.
        codebook_size: Number of codes.
        code_dim: Channels of a code.
    """

    pos_embed: Tensor
    places: Tensor

    def __init__(
        self,
        *,
        channels: int,
        side: int,
        tokens: int,
        dim: int,
        heads: int,
        depth: int,
        query_dim: int,
        query_heads: int,
        codebook_size: int,
        code_dim: int,
    ) -> None:
        super().__init__()
        self.side = side
        self.x_embedder = nn.Conv2d(channels, dim, PATCH, stride=PATCH)
        self.register_buffer("pos_embed", grid_sincos(dim, 2 * side).unsqueeze(0))
        self.register_buffer("places", token_positions(tokens), persistent=False)
        self.query_tokens = nn.Parameter(0.02 * torch.randn(1, tokens, query_dim))
        self.blocks = nn.ModuleList(DualBlock(dim, heads, query_dim, query_heads) for _ in range(depth))
        self.quantizer = CosineCodebook(query_dim, codebook_size, code_dim, tokens)
        self.final_layer_norm = nn.LayerNorm(query_dim, eps=EPS)  # this and the next are in the checkpoint, without use
        self.final_layer_norm2 = nn.LayerNorm(code_dim, eps=EPS)
        self.final_layer_norm3 = nn.LayerNorm(code_dim, eps=EPS)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `(B, C, side, side)` to queries `(B, K, query_dim)`."""
        patches = self.x_embedder(latents).flatten(2).transpose(1, 2) + self._positions()
        queries = self.query_tokens.expand(len(latents), -1, -1)
        for block in self.blocks:
            patches, queries = block(patches, queries, self.places)
        return queries

    def project(self, queries: Tensor) -> Tensor:
        """What is compared with the codes, `(B, K, code_dim)`, before it is normalised."""
        projected: Tensor = self.quantizer.project_in(queries)
        return projected

    def lookup(self, codes: Tensor) -> Tensor:
        """What the decoder takes for codes `(B, K)`: their rows, normalised, `(B, K, code_dim)`."""
        rows: Tensor = self.final_layer_norm3(self.quantizer.lookup(codes))
        return rows

    def _positions(self) -> Tensor:
        """The middle of the fixed table of `2 side` rows, `(1, P, dim)`."""
        grid, rows = self.side // PATCH, 2 * self.side
        start = (rows - grid) // 2
        table: Tensor = self.pos_embed.unflatten(1, (rows, rows))
        return table[:, start : start + grid, start : start + grid].flatten(1, 2)
