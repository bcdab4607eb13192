"""T2T-ViT: split an image into 3136 overlapping tokens and restructure them, step by step, into 196."""

from typing import Any, cast

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from reference_impls.layers.image_checks import check_image_shape
from reference_impls.layers.tokens_to_token import REDUCTION, TokensToToken, TokensType
from tokenmark.contracts import ClassifierMethod, Layout, MethodError, Paper, Variant

__all__ = ["METHOD", "T2TVit", "sinusoid_table"]


class T2TVit(nn.Module):
    """The tokens-to-token module before a deep and narrow vision transformer (arXiv 2101.11986, section 3.2).

    The arguments are those of the release; the defaults are T2T-ViT-14. `token_dim` is the width between the splits.
    Attention is scaled by its heads' width, as the release's evaluation does.

    Raises:
        MethodError: an image size that is no multiple of 16, no such `tokens_type`, or heads that do not divide the
            width.
    """

    pos_embed: Tensor

    def __init__(
        self,
        *,
        img_size: int = 224,
        tokens_type: TokensType = "performer",
        embed_dim: int = 384,
        depth: int = 14,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        token_dim: int = 64,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        if img_size % REDUCTION or embed_dim % num_heads:
            raise MethodError(
                f"img_size {img_size} must be a multiple of {REDUCTION}, and {num_heads} heads divide a width of"
                f" {embed_dim}"
            )
        self.image_shape = (3, img_size, img_size)
        self.tokens_to_token = TokensToToken(tokens_type, embed_dim, token_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.register_buffer("pos_embed", sinusoid_table(1 + (img_size // REDUCTION) ** 2, embed_dim)[None])
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, qkv_bias=False, norm_layer=nn.LayerNorm) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.apply(_drawn)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)` of normalised images `(B, 3, H, W)`.

        Raises:
            MethodError: the images are of another size.
        """
        check_image_shape(images, self.image_shape)
        x = self.tokens_to_token(images)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1).to(x.dtype), x), dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return cast("Tensor", self.head(self.norm(x)[:, 0]))


def sinusoid_table(positions: int, width: int) -> Tensor:
    """Sines in even and cosines in odd columns, each pair of a frequency of its own: `(positions, width)` float32.

    Computed in float64 and rounded, as the release's checkpoints hold it.
    """
    column = torch.arange(width, dtype=torch.float64)
    place = torch.arange(positions, dtype=torch.float64)[:, None]
    angles = place / 10000.0 ** (2 * (column // 2) / width)
    return torch.where(column % 2 == 0, angles.sin(), angles.cos()).float()


def _drawn(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


RELEASES = "https://github.com/yitu-opensource/T2T-ViT/releases/download/main"


def _size(width: int, depth: int, heads: int, file: str = "", **others: Any) -> Variant:
    config = {"embed_dim": width, "depth": depth, "num_heads": heads, **others}
    return Variant(config=config, note=f"{RELEASES}/{file}" if file else "its authors published no checkpoint of it")


METHOD = ClassifierMethod(
    id="t2t-vit",
    title="T2T-ViT",
    idea="Restructure overlapping tokens of an image step by step, each time gathering neighbours into one token.",
    acts="twice before the first block, 3136 to 784 to 196",
    paper=Paper(
        title="Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet",
        authors="Li Yuan, Yunpeng Chen, Tao Wang, Weihao Yu, Yujun Shi, Zi-Hang Jiang, Francis E. H. Tay,"
        " Jiashi Feng, Shuicheng Yan",
        year=2021,
        url="https://arxiv.org/abs/2101.11986",
    ),
    build=T2TVit,
    layout=Layout(wrappers=("state_dict_ema", "state_dict")),
    variants={
        "t2t-vit-7": _size(256, 7, 4, "71.7_T2T_ViT_7.pth.tar", mlp_ratio=2.0),
        "t2t-vit-10": _size(256, 10, 4, "75.2_T2T_ViT_10.pth.tar", mlp_ratio=2.0),
        "t2t-vit-12": _size(256, 12, 4, "76.5_T2T_ViT_12.pth.tar", mlp_ratio=2.0),
        "t2t-vit-14": _size(384, 14, 6, "81.5_T2T_ViT_14.pth.tar"),
        "t2t-vit-14-384": _size(384, 14, 6, "83.3_T2T_ViT_14.pth.tar", img_size=384),
        "t2t-vit-19": _size(448, 19, 7, "81.9_T2T_ViT_19.pth.tar"),
        "t2t-vit-24": _size(512, 24, 8, "82.3_T2T_ViT_24.pth.tar"),
        "t2t-vit-14-resnext": _size(384, 14, 32),
        "t2t-vit-14-wide": _size(768, 4, 12),
        "t2t-vit-t-14": _size(384, 14, 6, "81.7_T2T_ViTt_14.pth.tar", tokens_type="transformer"),
        "t2t-vit-t-19": _size(448, 19, 7, "82.4_T2T_ViTt_19.pth.tar", tokens_type="transformer"),
        "t2t-vit-t-24": _size(512, 24, 8, "82.6_T2T_ViTt_24.pth.tar", tokens_type="transformer"),
    },
)
