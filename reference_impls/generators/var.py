"""VAR: a transformer that writes an image scale after scale, each of them at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.code_generator import CodeGenerator
from reference_impls.layers.grid_vq import as_rows
from reference_impls.layers.multiscale import MultiScaleVQ
from reference_impls.layers.noise import Noise, drawn_by_race
from reference_impls.layers.precision import at_least_float32, without_autocast
from reference_impls.layers.rar_transformer import KeyValues
from reference_impls.layers.swiglu_blocks import drawn
from reference_impls.layers.var_transformer import PARTS, VarBlock, VarHeadNorm, scale_mask
from reference_impls.tokenizers.var_vq import VarVQ
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Release, Tokenizer, Variant

__all__ = ["METHOD", "Var", "VarSettings", "build", "likeliest", "release_arguments"]


@dataclass(frozen=True, slots=True)
class VarSettings:
    """What a sampling run may choose (`autoregressive_infer_cfg`, models/var.py)."""

    cfg: float = 1.5
    """Guidance t of `(1 + t) cond - t uncond` at the last scale; it grows from 0 at the first. 0 is none at all."""
    top_k: int = 900
    """Draw from that many of the likeliest codes; 0 for all of them."""
    top_p: float = 0.96
    """Draw from the likeliest codes whose probabilities make up this share; 0 for all of them."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.cfg < float("inf"):
            raise MethodError(f"cfg must be 0 or more, got {self.cfg}")
        if self.top_k < 0:
            raise MethodError(f"top_k must be 0 or more, got {self.top_k}")
        if not 0.0 <= self.top_p <= 1.0:
            raise MethodError(f"top_p must be 0 to 1, got {self.top_p}")


def likeliest(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """`logits` `(..., V)` with -inf in place of those that may not be drawn: first by number, then by their share.

    From the least likely one on, those go whose probabilities sum up to 1 - `top_p` at most; one always stays.
    """
    if 0 < top_k < logits.shape[-1]:
        # Whatever ties with the last one that stays also stays.
        least = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p > 0:
        ascending, order = logits.sort(dim=-1)
        gone = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        gone[..., -1] = False
        logits = logits.masked_fill(torch.zeros_like(gone).scatter(-1, order, gone), -torch.inf)
    return logits


class Var(CodeGenerator):
    """Next-scale prediction (arXiv 2404.02905, sections 3.1 and 3.3): every scale's codes from all coarser ones.

    It reads the sum of the scales so far, averaged down to the next one's size, and not its codes' own embeddings;
    the first scale reads the class, which also modulates every block.

    Args:
        num_classes: Number of classes; one row more stands for the dropped one.
        depth: Number of blocks.
        embed_dim: Width, D.
        num_heads: Attention heads.
        patch_nums: Sides of the scales, coarse to fine.
        mlp_ratio: Hidden channels of the MLPs over the width.
        shared_aln: Whether blocks share their modulation, but for a table each.
        attn_l2_norm: Whether queries and keys have length 1.
        vocab_size: Number of codes, V.
        z_channels: Channels of a code.
    """

    lvl_1L: Tensor  # noqa: N815  the release's key
    attn_bias_for_masking: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        depth: int,
        embed_dim: int,
        num_heads: int,
        patch_nums: Sequence[int],
        mlp_ratio: float = 4.0,
        shared_aln: bool = False,
        attn_l2_norm: bool = True,
        vocab_size: int = 4096,
        z_channels: int = 32,
    ) -> None:
        super().__init__()
        self.classes, self.heads, self.scales = num_classes, num_heads, tuple(patch_nums)
        levels, bias = scale_mask(self.scales)
        first = self.scales[0] ** 2
        self.pos_start = drawn(1, first, embed_dim)
        self.pos_1LC = drawn(1, levels.shape[1], embed_dim)
        self.register_buffer("lvl_1L", levels)
        self.register_buffer("attn_bias_for_masking", bias)
        self.word_embed = nn.Linear(z_channels, embed_dim)
        self.class_emb = nn.Embedding(num_classes + 1, embed_dim)
        self.lvl_embed = nn.Embedding(len(self.scales), embed_dim)
        shared = nn.Sequential(nn.SiLU(), nn.Linear(embed_dim, PARTS * embed_dim)) if shared_aln else None
        self.shared_ada_lin = shared
        self.blocks = nn.ModuleList(
            VarBlock(embed_dim, num_heads, mlp_ratio, shared=shared_aln, l2_norm=attn_l2_norm) for _ in range(depth)
        )
        self.head_nm = VarHeadNorm(embed_dim)
        self.head = nn.Linear(embed_dim, vocab_size)

    @property
    def quantizer(self) -> MultiScaleVQ:
        """The tokenizer's, which says what a scale adds to the sum."""
        tokenizer = self.tokenizer
        assert isinstance(tokenizer, VarVQ)  # noqa: S101  `build` binds no other
        return tokenizer.quantize

    def forward(self, labels: Tensor, inputs: Tensor) -> Tensor:
        """Logits `(B, L, V)` of all scales at once, for `inputs` `(B, L - n_0, C)`: `MultiScaleQuantizer.next_inputs`.

        Labels are int64 `(B,)`, where `classes` is the dropped one.
        """
        condition = self.class_emb(labels)
        x = torch.cat([self._first(condition), self.word_embed(inputs.to(condition.dtype))], dim=1)
        return self._logits(x, condition, bias=self.attn_bias_for_masking.to(x.dtype))

    @property
    def written(self) -> tuple[int, tuple[int, ...]]:
        """Tokens of an image, and their codes."""
        return self.pos_1LC.shape[1], (self.head.out_features,)

    def steps(self, settings: VarSettings) -> int:  # noqa: ARG002  the scales are the network's
        """Calls of the network for a batch: one for every scale."""
        return len(self.scales)

    def generate(self, labels: Tensor, settings: VarSettings, noise: Noise, watch: Watch) -> Tensor:
        """Codes `(B, L)`, scale after scale, for `labels`; `watch` sees the guided logits `(B, n, V)` of each."""
        quantizer, guided = self.quantizer, settings.cfg > 0.0
        classes = torch.cat([labels, torch.full_like(labels, self.classes)]) if guided else labels
        condition = self.class_emb(classes)
        caches = [KeyValues(self.pos_1LC.shape[1]) for _ in self.blocks]
        x, start, codes = self._first(condition), 0, []
        total: Tensor | None = None
        for scale, side in enumerate(self.scales):
            logits = self._logits(x, condition, start, caches)
            if guided:
                weight = settings.cfg * scale / max(1, len(self.scales) - 1)
                conditional, unconditional = logits.chunk(2)
                logits = (1.0 + weight) * conditional - weight * unconditional
            allowed = likeliest(watch.see(logits), settings.top_k, settings.top_p)
            uniform = noise.uniform("codes", scale, side * side, logits.shape[-1])
            codes.append(drawn_by_race(allowed.softmax(-1), uniform))
            start += side * side
            if scale + 1 < len(self.scales):
                with without_autocast(condition):
                    step = quantizer.step(codes[-1], scale)
                total = step if total is None else total + step
                pooled = functional.adaptive_avg_pool2d(total, self.scales[scale + 1])
                x = self.word_embed(as_rows(pooled).to(condition.dtype)).repeat(2 if guided else 1, 1, 1)
        return torch.cat(codes, dim=1)

    def _first(self, condition: Tensor) -> Tensor:
        return condition.unsqueeze(1) + self.pos_start

    def _logits(
        self,
        x: Tensor,
        condition: Tensor,
        start: int = 0,
        caches: Sequence[KeyValues] | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        places = slice(start, start + x.shape[1])
        x = x + self.lvl_embed(self.lvl_1L[:, places]) + self.pos_1LC[:, places]
        modulation = condition if self.shared_ada_lin is None else self.shared_ada_lin(condition)
        for index, block in enumerate(self.blocks):
            x = block(x, modulation, bias, start, None if caches is None else caches[index])
        return at_least_float32(self.head(self.head_nm(x, condition)))


def build(tokenizer: Tokenizer | None, **network: Any) -> Var:
    """A generator that writes for `tokenizer`; `network` are the arguments of `Var`.

    Raises MethodError if the tokenizer does not read the codes that these sizes write.
    """
    generator = Var(**network)
    if tokenizer is None:
        return generator
    if not isinstance(tokenizer, VarVQ):
        raise MethodError("VAR reads the sum of the scales so far, which only the tokenizer var-vq makes: give it one")
    quantizer = tokenizer.quantize
    reads = (quantizer.scales, quantizer.embedding.num_embeddings, quantizer.embedding.embedding_dim)
    writes = (generator.scales, generator.head.out_features, generator.word_embed.in_features)
    if reads != writes:
        raise MethodError(
            f"this generator writes scales {list(writes[0])} of {writes[1]} codes with {writes[2]} channels, the "
            f"tokenizer reads {list(reads[0])} of {reads[1]} with {reads[2]}"
        )
    generator.bind(tokenizer)
    return generator


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Var` for those of the release's transformer and autoencoder."""
    return {**config["var"], **{name: config["vae"][name] for name in ("vocab_size", "z_channels")}}


SCALES_256, SCALES_512 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)
HEAD_DIM = 64
"""Channels of a head; there are as many heads as blocks."""


def _variant(depth: int, tokenizer: str, patch_nums: Sequence[int], *, shared_aln: bool = False) -> Variant:
    return Variant(
        config={
            "num_classes": 1000,
            "depth": depth,
            "embed_dim": depth * HEAD_DIM,
            "num_heads": depth,
            "patch_nums": patch_nums,
            "shared_aln": shared_aln,
        },
        tokenizer=tokenizer,
        release=Release("FoundationVision/var", f"var_d{depth}.pth", licence="MIT"),
    )


METHOD = GeneratorMethod(
    id="var",
    title="VAR",
    idea="A transformer that writes ten grids of codes from coarse to fine, each at once from all that are coarser",
    paper=Paper(
        title="Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale Prediction",
        authors="Keyu Tian, Yi Jiang, Zehuan Yuan, Bingyue Peng, Liwei Wang",
        year=2024,
        url="https://arxiv.org/abs/2404.02905",
    ),
    settings=VarSettings,
    build=build,
    variants={
        **{f"d{depth}": _variant(depth, "var-vq/ch160v4096z32", SCALES_256) for depth in (16, 20, 24, 30)},
        "d36": _variant(36, "var-vq/ch160v4096z32-512", SCALES_512, shared_aln=True),
    },
    presets={
        # The README states one setting for all sizes, and 50 images of every class in no order.
        f"var-d{depth}-paper": Preset(
            settings=VarSettings(cfg=1.5, top_k=900, top_p=0.96),
            variants=(f"d{depth}",),
            printed=f"README.md: gFID {gfid}",
        )
        for depth, gfid in ((16, "3.55"), (20, "2.95"), (24, "2.33"), (30, "1.97"), (36, "2.63"))
    },
)
