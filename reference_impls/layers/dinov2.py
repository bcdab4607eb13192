"""DINOv2 with registers (arXiv 2304.07193, 2309.16588) as a frozen part of a tokenizer, and how it is shown images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import MethodError, Part, Release

__all__ = ["DINOV2_L", "DINOV2_L_PART", "DinoSize", "DinoV2", "Foundation", "foundation_arguments", "resize_smoothed"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class DinoSize:
    """Sizes of a DINOv2 with registers."""

    img_size: int
    """Side of the images that its position table was made for, in pixels."""
    input: int
    """Side at which it is shown images here."""
    dim: int
    depth: int
    heads: int
    registers: int = 4
    patch_size: int = 14


DINOV2_L_PART = Part(
    "part-dinov2-vitl14-reg4",
    Release("timm/vit_large_patch14_reg4_dinov2.lvd142m", licence="Apache-2.0"),
)
"""Where its weights are."""

DINOV2_L: Mapping[str, Any] = {
    "img_size": 518,
    "dim": 1024,
    "depth": 24,
    "heads": 16,
    "registers": 4,
    "separate": True,
}
"""`dinov2_vitl14_reg4`, which tokenizers' checkpoints leave out; arguments of `Foundation` but for `input`."""


def foundation_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Foundation` for the `vfm` group of a release's configuration.

    An architecture under its name in the DINOv2 release (`dinov2_vitl14_reg4`) is loaded from that release, and the
    tokenizer's checkpoint leaves it out.
    """
    sizes = {name: config[name] for name in ("img_size", "input", "dim", "depth", "heads", "registers")}
    return {**sizes, "separate": config["arch"].startswith("dinov2_")}


def resize_smoothed(images: Tensor, size: int) -> Tensor:
    """Images `(B, C, H, W)` at `size` pixels as kornia resizes them: bicubic, corners aligned, antialiased.

    Where they shrink they are blurred before: a Gaussian of sigma (factor - 1) / 2 over max(4 sigma, 3) pixels, made
    odd, the border mirrored.
    """
    height, width = images.shape[2:]
    if (height, width) == (size, size):
        return images
    factors = (height / size, width / size)
    if max(factors) > 1.0:
        images = _blur(_blur(images, factors[0], 2), factors[1], 3)
    return functional.interpolate(images, size=(size, size), mode="bicubic", align_corners=True)


def _blur(images: Tensor, factor: float, dim: int) -> Tensor:
    sigma = max((factor - 1.0) / 2.0, 0.001)
    taps = int(max(4.0 * sigma, 3.0)) // 2 * 2 + 1
    places = torch.arange(taps, dtype=images.dtype, device=images.device) - taps // 2
    weights = torch.exp(-places.square() / (2.0 * sigma**2))
    kernel = (weights / weights.sum()).reshape((1, 1, taps, 1) if dim == 2 else (1, 1, 1, taps))
    border = taps // 2
    padded = functional.pad(images, (0, 0, border, border) if dim == 2 else (border, border, 0, 0), mode="reflect")
    return functional.conv2d(padded, kernel.expand(images.shape[1], -1, -1, -1), groups=images.shape[1])


class DinoV2(nn.Module):
    """The vision transformer of DINOv2 with registers, under the release's keys."""

    def __init__(self, size: DinoSize) -> None:
        super().__init__()
        self.table_side = size.img_size // size.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1 + self.table_side**2, size.dim), std=0.02))
        self.register_tokens = nn.Parameter(torch.zeros(1, size.registers, size.dim))
        self.mask_token = nn.Parameter(torch.zeros(1, size.dim))  # stands for masked patches in its training only
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, size.dim, size.patch_size, size.patch_size)})
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(size.dim, size.heads, qkv_bias=True, init_values=1e-5, norm_layer=norm)  # type: ignore[arg-type]
            for _ in range(size.depth)
        )
        self.norm = norm(size.dim)

    def forward(self, images: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """Normalised images `(B, 3, H, W)` to the class and patch tokens `(B, 1 + h*w, dim)` behind blocks `levels`.

        What stands for the last level has gone through all blocks and the final norm; the registers are left out.
        """
        grid: Tensor = self.patch_embed["proj"](images)
        patches = grid.flatten(2).transpose(1, 2)
        start = self.cls_token.expand(len(images), -1, -1)
        x = torch.cat([start, patches], dim=1) + self._positions(*grid.shape[2:]).to(patches.dtype)
        registers = self.register_tokens.expand(len(images), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
        seen = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in levels[:-1]:
                seen[index] = x
        found = [*(seen[index] for index in levels[:-1]), self.norm(x)]
        first = 1 + self.register_tokens.shape[1]
        return [torch.cat([tokens[:, :1], tokens[:, first:]], dim=1) for tokens in found]

    def _positions(self, height: int, width: int) -> Tensor:
        """The position table for a grid: resized bicubically, antialiased, as the release does with registers."""
        if (height, width) == (self.table_side, self.table_side):
            return self.pos_embed
        table = at_least_float32(self.pos_embed[:, 1:]).unflatten(1, (self.table_side, self.table_side)).movedim(3, 1)
        resized = functional.interpolate(table, size=(height, width), mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)], dim=1)


class Foundation(nn.Module):
    """A frozen DINOv2 and the way to it from images in [-1, 1].

    Args:
        separate: Whether its weights are kept apart, as releases do that strip them from their checkpoints: they are
            then no part of the state dict, and `load` must bring them before images can be encoded.
        size: Fields of `DinoSize`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, separate: bool = False, **size: Any) -> None:
        super().__init__()
        self.size = DinoSize(**size)
        if self.size.input % self.size.patch_size:
            raise MethodError(f"input must be a multiple of the patch size {self.size.patch_size}: {self.size.input}")
        self.separate, self.loaded = separate, not separate
        self.pretrained_encoder = DinoV2(self.size).requires_grad_(requires_grad=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(3, 1, 1), persistent=False)
        if separate:
            self.register_state_dict_post_hook(_without)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_post_hook(_nothing_missing)  # type: ignore[no-untyped-call]

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.size.input // self.size.patch_size

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the weights of DINOv2, under its release's keys or under timm's (strictly)."""
        self.pretrained_encoder.load_state_dict(_from_timm(tensors) if "reg_token" in tensors else tensors)
        self.loaded = True

    def shown(self, signed: Tensor) -> Tensor:
        """What it is shown of images `(B, 3, H, W)` in [-1, 1], in [0, 1], before ImageNet's mean and deviation."""
        return (resize_smoothed(signed, self.size.input).clamp(-1.0, 1.0) + 1.0) / 2.0

    def normalised(self, signed: Tensor) -> Tensor:
        """The same after ImageNet's mean and deviation."""
        return (self.shown(signed) - self.mean.to(signed)) / self.std.to(signed)

    def forward(self, signed: Tensor, levels: Sequence[int] | None = None) -> list[Tensor]:
        """Images `(B, 3, H, W)` in [-1, 1] to tokens `(B, 1 + h*w, dim)` of `levels` (just the last one by default).

        Raises MethodError where its separate weights were not loaded.
        """
        if not self.loaded:
            raise MethodError("the checkpoint leaves its frozen DINOv2 out: give that one's weights to load_part")
        found: list[Tensor] = self.pretrained_encoder(
            self.normalised(signed), levels if levels is not None else (self.size.depth - 1,)
        )
        return found


def _from_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Timm's keys to the release's.

    timm keeps the class token and its row of the position table as one sum, and has no mask token.
    """
    found = dict(tensors)
    found["register_tokens"] = found.pop("reg_token")
    found["pos_embed"] = torch.cat([torch.zeros_like(found["cls_token"]), found["pos_embed"]], dim=1)
    found["mask_token"] = torch.zeros_like(found["cls_token"][0])
    return found


def _without(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Take a module's entries out of a state dict."""
    for key in [key for key in state if key.startswith(prefix)]:
        del state[key]


def _nothing_missing(_module: nn.Module, keys: Any) -> None:
    """Let a state dict do without a module's entries; called with what was missing so far, its own or not."""
    keys.missing_keys[:] = [key for key in keys.missing_keys if ".pretrained_encoder." not in f".{key}"]
