"""FlexDiT, later SparseDiT: a DiT that computes most of its blocks on fewer tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from reference_impls.generators.dit import XL_2
from reference_impls.layers.diffusion_transformer import DiffusionTransformer
from reference_impls.layers.dumbbell import BiasedBlock, Dumbbell, PoolingBlock, RelativeBias
from reference_impls.layers.latent_diffusion import DiffusionSettings
from reference_impls.tokenizers.sd_vae import LATENT_SCALE
from tokenmark.contracts import GeneratorMethod, Layout, MethodError, Paper, Preset, Tokenizer, Variant

__all__ = ["METHOD", "SparseDiT", "build", "release_arguments"]


class SparseDiT(DiffusionTransformer):
    """FlexDiT (arXiv 2412.06028, section 3): pooling blocks, dumbbells of few tokens, and DiT's blocks on all.

    Args:
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of the MLPs over the width.
        hidden_size: Width.
        num_poolingformer: Blocks that mix tokens by their mean.
        num_dumbbell: Dumbbells.
        num_normal_block: Blocks at the end.
        semantic_size: Side of the grid of the few tokens.
        dumbbell_group: Blocks of a dumbbell that merge, work on the few, recover, and work on all.
        attn_relat_pos: "relat": attention of the last `num_normal_block` blocks has a learned bias for every offset.
        frame: As `DiffusionTransformer` takes it.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        hidden_size: int,
        mlp_ratio: float = 4.0,
        num_poolingformer: int,
        num_dumbbell: int,
        num_normal_block: int,
        semantic_size: int = 8,
        dumbbell_group: Sequence[int],
        attn_relat_pos: Literal["relat"] | None = None,
        **frame: Any,
    ) -> None:
        super().__init__(hidden_size=hidden_size, **frame)
        if semantic_size < 1 or self.grid % semantic_size:
            raise MethodError(f"semantic_size must divide {self.grid} patches per side, got {semantic_size}")
        self.poolingformer_blocks = nn.ModuleList(
            PoolingBlock(hidden_size, mlp_ratio) for _ in range(num_poolingformer)
        )
        self.dumbbell_blocks = nn.ModuleList(
            Dumbbell(
                width=hidden_size,
                heads=num_heads,
                mlp_ratio=mlp_ratio,
                grid=self.grid,
                few=semantic_size,
                blocks=dumbbell_group,
            )
            for _ in range(num_dumbbell)
        )
        self.normal_blocks = nn.ModuleList(
            BiasedBlock(hidden_size, num_heads, mlp_ratio) for _ in range(num_normal_block)
        )
        self.finish(hidden_size)
        self.relative_pos_embedder = nn.ModuleList([RelativeBias(self.grid, num_heads)] if attn_relat_pos else [])

    def mixed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, L, D)` and conditions `(B, D)` to tokens."""
        bias = self.relative_pos_embedder[0]() if len(self.relative_pos_embedder) else None
        for block in self.poolingformer_blocks:
            tokens = block(tokens, condition)
        for block in self.dumbbell_blocks:
            tokens = block(tokens, condition)
        for block in self.normal_blocks:
            tokens = block(tokens, condition, bias)
        return tokens


def build(
    tokenizer: Tokenizer | None,
    *,
    depth: int,
    num_poolingformer: int,
    num_dumbbell: int,
    num_normal_block: int,
    dumbbell_group: Sequence[int] = (1, 3, 1, 1),
    attn_relat_pos: Literal["relat"] | None = None,
    latent_scale: float = LATENT_SCALE,
    **sizes: Any,
) -> SparseDiT:
    """A generator that writes for `tokenizer`; the other `sizes` are `SparseDiT`'s, all named as in the release.

    Raises MethodError if the tokenizer does not read the latents that these sizes write, or if blocks are not as many
    as `depth` says.
    """
    if attn_relat_pos not in (None, "relat"):
        raise MethodError(f"attn_relat_pos must be relat or none, got '{attn_relat_pos}'")
    if len(dumbbell_group) != 4 or dumbbell_group[2] < 1:
        numbers = "four numbers of blocks, the third at least 1 (it recovers the tokens)"
        raise MethodError(f"dumbbell_group must be {numbers}, got {list(dumbbell_group)}")
    blocks = num_poolingformer + num_dumbbell * sum(dumbbell_group) + num_normal_block
    if blocks != depth:
        raise MethodError(f"depth must be the number of blocks, {blocks}, got {depth}")
    generator = SparseDiT(
        num_poolingformer=num_poolingformer,
        num_dumbbell=num_dumbbell,
        num_normal_block=num_normal_block,
        dumbbell_group=dumbbell_group,
        attn_relat_pos=attn_relat_pos,
        latent_scale=latent_scale,
        **sizes,
    )
    generator.attach(tokenizer)
    return generator


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for those of the release's class."""
    no_part = ("learn_sigma", "class_dropout_prob", "sampling")
    return {name: value for name, value in config.items() if name not in no_part}


METHOD = GeneratorMethod(
    id="sparsedit",
    title="FlexDiT",
    idea="A DiT whose first blocks mix tokens by their mean and whose middle ones compute on a pooled grid",
    paper=Paper(
        title="FlexDiT: Dynamic Token Density Control for Diffusion Transformer",
        authors="Shuning Chang, Pichao Wang, Jiasheng Tang, Yi Yang",
        year=2024,
        url="https://arxiv.org/abs/2412.06028",
    ),
    settings=DiffusionSettings,
    build=build,
    layout=Layout(wrappers=("ema",)),
    variants={
        "xl-2-256": Variant(
            config={**XL_2, "input_size": 32, "num_poolingformer": 1, "num_dumbbell": 4, "num_normal_block": 3},
            tokenizer="sd-vae/ft-ema",
            note="its authors published the code and no weights; called SparseDiT later",
        ),
        "xl-2-512": Variant(
            config={**XL_2, "input_size": 64, "num_poolingformer": 2, "num_dumbbell": 4, "num_normal_block": 2},
            tokenizer="sd-vae/ft-ema-512",
            note="its authors published the code and no weights; called SparseDiT later",
        ),
    },
    presets={
        # No number is printed that was measured so: those of the paper have other numbers of few tokens at other times,
        # which the authors' code lacks.
        f"sparsedit-{size}-paper": Preset(
            settings=DiffusionSettings(steps=250, cfg_scale=1.5),
            variants=(size,),
            classes="random",
            seed="0 * processes + rank",
            batch_size=32,
            printed="arXiv 2412.06028: settings without a gFID of what the authors' code computes",
        )
        for size in ("xl-2-256", "xl-2-512")
    },
)
