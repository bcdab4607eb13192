"""LV-ViT."""

from typing import Any, cast

from torch import Tensor, nn

from reference_impls.layers.families.base import Backbone, Places, linear_macs
from reference_impls.layers.families.timm_vit import TimmBlock
from reference_impls.layers.lv_vit import LvVit

__all__ = ["KINDS"]


class LvBlockView(TimmBlock):
    """LV-ViT's block, which is timm's but for a constant by which both branches are divided."""

    def residual1(self, out: Tensor) -> Tensor:
        """A part of it."""
        return cast("Tensor", out / self.block.skip_lam)

    def residual2(self, out: Tensor) -> Tensor:
        """A part of it."""
        return cast("Tensor", out / self.block.skip_lam)


class LvVitBackbone(Backbone):
    """LV-ViT of `reference_impls.layers.lv_vit`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.blocks = tuple(LvBlockView(block) for block in model.blocks)
        self.prefix = 1
        self.grid = model.patch_embed.grid_size
        self.image_shape = model.image_shape
        self.width = model.norm.weight.numel()
        self.has_class_token = True

    def embed(self, images: Tensor) -> tuple[Tensor, Places | None]:
        """The stem's patches, the class token and positions."""
        model: Any = self.model
        return model.embed(images), None

    def head(self, x: Tensor, size: Tensor | None) -> Tensor:
        """The class token's logits and the greatest of the patches', which sizes do not change."""
        del size
        model: Any = self.model
        return cast("Tensor", model.classify(x))

    @property
    def ends_cost(self) -> tuple[int, int, int]:
        """The stem, the class token's classifier, and the other classifier for every patch."""
        model: Any = self.model
        stem, patches = model.patch_embed, self.grid[0] * self.grid[1]
        pixels = (self.image_shape[1] // 2) * (self.image_shape[2] // 2)
        convolutions = sum(conv.weight.numel() for conv in (stem.conv1, stem.conv2, stem.conv3))
        embed = pixels * convolutions + patches * stem.proj.weight.numel()
        per_token = linear_macs(model.aux_head)
        return embed, linear_macs(model.head) - self.prefix * per_token, per_token

    @classmethod
    def refusal(cls, model: Any) -> str | None:
        """It has no variants that are not served."""
        del model
        return None


KINDS: dict[type[nn.Module], type[LvVitBackbone]] = {LvVit: LvVitBackbone}
