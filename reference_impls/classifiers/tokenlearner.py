"""TokenLearner in a vision transformer: before a block, all tokens become a few learned ones.

With its fuser every block from there on learns its tokens, and spreads what comes out over all places again.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from reference_impls.layers.flax_layers import FlaxConv, FlaxDense, FlaxMlp
from reference_impls.layers.image_checks import check_image_shape, check_tiling
from reference_impls.layers.token_learner import EPS, TokenFuser, TokenLearnerV10, TokenLearnerV11
from tokenmark.contracts import ClassifierMethod, Layout, MethodError, Paper, Variant

__all__ = ["METHOD", "TokenLearnerVit"]

POOLS: dict[str, Callable[..., Tensor]] = {"gap": torch.mean, "gsp": torch.sum, "gmp": torch.amax}
"""How the last tokens are pooled, by the release's names."""


class SelfAttention(nn.Module):
    """Multi-head self-attention with flax's kernels, `(width, heads, head width)` and back."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        split = (heads, width // heads)
        self.query, self.key, self.value = (FlaxDense((width,), split) for _ in range(3))
        self.out = FlaxDense(split, (width,))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to tokens."""
        q, k, v = (each(x).transpose(1, 2) for each in (self.query, self.key, self.value))
        return cast("Tensor", self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2)))


class EncoderBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = FlaxMlp(width, mlp_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to tokens."""
        x = x + self.attn(self.norm1(x))
        return cast("Tensor", x + self.mlp(self.norm2(x)))


class TokenLearnerVit(nn.Module):
    """A vision transformer without class token that learns `num_tokens` tokens before block `tokenlearner_loc`.

    The arguments are those of the release's configuration; the defaults are its B/16. Kernels are in flax's order.

    Raises:
        MethodError: the patches do not tile the image, no such block or pooling, or heads that do not divide the width.
    """

    def __init__(
        self,
        *,
        img_size: int = 224,
        patch_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_heads: int = 12,
        num_tokens: int = 16,
        tokenlearner_loc: int = 9,
        use_tokenfuse: bool = False,
        use_v11: bool = True,
        representation_size: int | None = None,
        classifier: str = "gap",
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        check_tiling(img_size, patch_size, hidden_size, num_heads)
        if not 0 <= tokenlearner_loc < num_layers:
            raise MethodError(f"tokenlearner_loc {tokenlearner_loc} must be a block, 0 to {num_layers - 1}")
        if classifier not in POOLS:
            raise MethodError(f"classifier '{classifier}' does not exist: choose {', '.join(POOLS)}")
        grid = img_size // patch_size
        self.image_shape = (3, img_size, img_size)
        self.first, self.classifier = tokenlearner_loc, classifier
        self.patch_embed = FlaxConv(3, hidden_size, patch_size, stride=patch_size, bias=True)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, grid * grid, hidden_size))
        self.blocks = nn.ModuleList(EncoderBlock(hidden_size, num_heads, mlp_dim) for _ in range(num_layers))
        self.learners = nn.ModuleList(
            TokenLearnerV11(hidden_size, num_tokens) if use_v11 else TokenLearnerV10(hidden_size, num_tokens, grid)
            for _ in range(num_layers - tokenlearner_loc if use_tokenfuse else 1)
        )
        self.fusers = nn.ModuleList(
            TokenFuser(hidden_size, num_tokens) for _ in range(num_layers - tokenlearner_loc if use_tokenfuse else 0)
        )
        self.norm = nn.LayerNorm(hidden_size, eps=EPS)
        self.pre_logits: nn.Module = nn.Identity()
        if representation_size is not None:
            self.pre_logits = nn.Sequential(FlaxDense((hidden_size,), (representation_size,)), nn.Tanh())
        self.head = FlaxDense((representation_size or hidden_size,), (num_classes,))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)` of normalised images `(B, 3, H, W)`.

        Raises:
            MethodError: the images are of another size.
        """
        check_image_shape(images, self.image_shape)
        x = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed
        for index, block in enumerate(self.blocks):
            step = index - self.first
            if step < 0:
                x = block(x)
            elif self.fusers:
                x = self.fusers[step](block(self.learners[step](x)), x) + x
            else:
                x = block(self.learners[0](x) if step == 0 else x)
        pooled = POOLS[self.classifier](self.norm(x), dim=1)
        return cast("Tensor", self.head(self.pre_logits(pooled)))


def _size(width: int, depth: int, heads: int) -> Variant:
    config: dict[str, Any] = {"hidden_size": width, "mlp_dim": 4 * width, "num_layers": depth, "num_heads": heads}
    return Variant(config=config, note="no ImageNet-1k weights were published: the release's configuration, v1.1")


FLAX = (
    (r"^Transformer\.posembed_input\.pos_embedding$", "pos_embed"),
    (r"^Transformer\.encoder_norm\.", "norm."),
    (r"^Transformer\.encoderblock_(\d+)\.", r"blocks.\1."),
    (r"^Transformer\.TokenLearnerModule(?:V11)?_(\d+)\.", r"learners.\1."),
    (r"^Transformer\.TokenFuser_(\d+)\.", r"fusers.\1."),
    (r"^embedding\.", "patch_embed."),
    (r"^pre_logits\.", "pre_logits.0."),
    (r"^output_projection\.", "head."),
    (r"(^blocks\.\d+\.)LayerNorm_0\.", r"\1norm1."),
    (r"(^blocks\.\d+\.)LayerNorm_1\.", r"\1norm2."),
    (r"\.LayerNorm_0\.", ".norm."),
    (r"\.fuser_mix_norm(\d)\.", r".norm\1."),
    (r"\.MultiHeadDotProductAttention_0\.", ".attn."),
    (r"\.(?:MlpBlock_0|token_masking)\.Dense_0\.", ".mlp.fc1."),
    (r"\.(?:MlpBlock_0|token_masking)\.Dense_1\.", ".mlp.fc2."),
    (r"\.Dense_0\.", ".mix."),
    (r"\.Conv_(\d)\.", r".convs.\1."),
    (r"\.scale$", ".weight"),
)
"""flax's names, joined by dots, and the module's."""

METHOD = ClassifierMethod(
    id="tokenlearner",
    title="TokenLearner",
    idea="Before one block, replace all tokens by a few weighted sums of them, whose weights are learned.",
    acts="before 1 block",
    paper=Paper(
        title="TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
        authors="Michael S. Ryoo, AJ Piergiovanni, Anurag Arnab, Mostafa Dehghani, Anelia Angelova",
        year=2021,
        url="https://arxiv.org/abs/2106.11297",
    ),
    build=TokenLearnerVit,
    layout=Layout(renames=FLAX),
    variants={"s-16": _size(384, 12, 6), "b-16": _size(768, 12, 12), "l-16": _size(1024, 24, 16)},
)
