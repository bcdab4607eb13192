"""SWAG's vision transformer."""

from typing import Any, cast

from torch import Tensor, nn

from reference_impls.layers.families.base import Backbone, BlockView, Places, linear_macs
from reference_impls.layers.families.torch_attention import TorchAttention
from reference_impls.layers.swag_vit import SwagVit
from tokenmark.contracts import BlockCost

__all__ = ["KINDS"]


class SwagBlockView(BlockView):
    """SWAG's block, which has neither layer scale nor drop-path."""

    def __init__(self, block: Any) -> None:
        self.block = block
        self.attention = TorchAttention(block.self_attention)
        width = block.self_attention.embed_dim
        self.head_width = block.self_attention.head_dim
        projections = block.self_attention.in_proj_weight.numel() + linear_macs(block.self_attention)
        self.cost = BlockCost(projections, 2 * width, linear_macs(block.mlp))

    def norm1(self, x: Tensor) -> Tensor:
        """Its ln_1."""
        return cast("Tensor", self.block.ln_1(x))

    def residual1(self, out: Tensor) -> Tensor:
        """All of it."""
        return out

    def norm2(self, x: Tensor) -> Tensor:
        """Its ln_2."""
        return cast("Tensor", self.block.ln_2(x))

    def mlp(self, x: Tensor) -> Tensor:
        """Its MLP."""
        return cast("Tensor", self.block.mlp(x))

    def residual2(self, out: Tensor) -> Tensor:
        """All of it."""
        return out


class SwagBackbone(Backbone):
    """SWAG of `reference_impls.layers.swag_vit`."""

    prefix = 1
    has_class_token = True

    def __init__(self, vit: Any) -> None:
        self.model = vit
        self.blocks = tuple(map(SwagBlockView, vit.encoder.layers))
        self.grid = vit.grid_size
        self.image_shape = (vit.conv_proj.in_channels, vit.img_size, vit.img_size)
        self.width = vit.conv_proj.out_channels

    def embed(self, images: Tensor) -> tuple[Tensor, Places | None]:
        """Patches, class token and positions."""
        return cast("Any", self.model).embed(images), None

    def head(self, x: Tensor, size: Tensor | None) -> Tensor:
        """The class token's logits, which sizes do not change."""
        del size
        return cast("Tensor", cast("Any", self.model).classify(x))

    @property
    def ends_cost(self) -> tuple[int, int, int]:
        """Patch projection and classifier."""
        vit: Any = self.model
        return self.patches * vit.conv_proj.weight.numel(), linear_macs(vit.head), 0

    @classmethod
    def refusal(cls, vit: Any) -> str | None:
        """It is always of one kind."""
        del vit
        return None


KINDS: dict[type[nn.Module], type[SwagBackbone]] = {SwagVit: SwagBackbone}
