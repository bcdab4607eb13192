"""DynamicViT on ConvNeXt: in the third stage, predictors say which places take a block's MLP and which one layer."""

from itertools import pairwise
from typing import cast

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import gelu

from reference_impls.layers.image_checks import check_image_shape
from reference_impls.layers.token_predictor import ratio_loss
from reference_impls.layers.two_paths import Route, check_ratios, chosen
from reference_impls.reducers.dynamicvit import DRIVE, LAYOUT
from tokenmark.contracts import ClassifierMethod, Layout, MethodError, Paper, Variant

__all__ = ["METHOD", "SPARSIFICATION", "DynamicConvNeXt"]

EPS, PATCH, STAGE = 1e-6, 4, 2
SPARSIFICATION = Paper(
    title="Dynamic Spatial Sparsification for Efficient Vision Transformers and Convolutional Neural Networks",
    authors="Rao, Liu, Zhao, Zhou, Lu",
    year=2023,
    url="https://arxiv.org/abs/2207.01580",
)


class MapPredictor(nn.Module):
    """DynamicViT's predictor on a map, of 1 x 1 convolutions; its mean is over all places, whatever was decided."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(LayerNorm2d(width, eps=EPS), nn.Conv2d(width, width, 1), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Conv2d(width, width // 2, 1),
            nn.GELU(),
            nn.Conv2d(width // 2, width // 4, 1),
            nn.GELU(),
            nn.Conv2d(width // 4, 2, 1),
            nn.LogSoftmax(dim=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities `(B, 2, H, W)`, keep first, of a map `(B, C, H, W)`."""
        local, spread = self.in_conv(x).chunk(2, dim=1)
        mean = spread.mean(dim=(2, 3), keepdim=True).expand_as(local)
        return cast("Tensor", self.out_conv(torch.cat((local, mean), dim=1)))


class ConvNeXtBlock(nn.Module):
    """ConvNeXt's block: a depthwise convolution and an MLP; with `fast`, a layer that can take the MLP's place."""

    def __init__(self, width: int, *, fast: bool) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))
        if fast:
            self.fast_path = nn.Sequential(nn.LayerNorm(width, eps=EPS), nn.Linear(width, width))
            self.fast_path_gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """The next map of `x` `(B, C, H, W)`; the convolution runs at all places, whatever their way."""
        inner: Tensor = self.dwconv(x).flatten(2).transpose(1, 2)
        out = self._slow(inner) if route is None else route.run(inner, self._slow, self._fast)
        return x + out.transpose(1, 2).reshape(x.shape)

    def _slow(self, x: Tensor) -> Tensor:
        return self.gamma * cast("Tensor", self.pwconv2(gelu(self.pwconv1(self.norm(x)))))

    def _fast(self, x: Tensor) -> Tensor:
        return self.fast_path_gamma * cast("Tensor", self.fast_path(x))


class DynamicConvNeXt(nn.Module):
    """ConvNeXt with two ways through the blocks of its third stage, from the first predictor on."""

    def __init__(
        self,
        img_size: int = 224,
        depths: tuple[int, ...] = (3, 3, 9, 3),
        dims: tuple[int, ...] = (96, 192, 384, 768),
        sparse_ratio: tuple[float, ...] = (0.7, 0.5, 0.3),
        pruning_loc: tuple[int, ...] = (1, 2, 3),
        num_classes: int = 1000,
    ) -> None:
        """`pruning_loc`: blocks of the third stage before which a predictor acts; `sparse_ratio`: what it keeps.

        Raises:
            MethodError: `img_size` is not a whole number of the last stage's places.
            BudgetError: `pruning_loc` or `sparse_ratio` are impossible.
        """
        super().__init__()
        least = PATCH * 2 ** (len(depths) - 1)
        if img_size < least or img_size % least:
            raise MethodError(f"img_size {img_size} must be a multiple of {least}, the pixels of one last place")
        check_ratios(pruning_loc, sparse_ratio, depths[STAGE])
        self.image_shape = (3, img_size, img_size)
        self.pruning_loc, self.ratios = pruning_loc, sparse_ratio
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, dims[0], PATCH, stride=PATCH), LayerNorm2d(dims[0], eps=EPS))]
        )
        for width, wider in pairwise(dims):
            step = nn.Sequential(LayerNorm2d(width, eps=EPS), nn.Conv2d(width, wider, 2, stride=2))
            self.downsample_layers.append(step)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                ConvNeXtBlock(width, fast=stage == STAGE and index >= pruning_loc[0]) for index in range(depth)
            )
            for stage, (depth, width) in enumerate(zip(depths, dims, strict=True))
        )
        self.norm = nn.LayerNorm(dims[-1], eps=EPS)
        self.head = nn.Linear(dims[-1], num_classes)
        self.score_predictor = nn.ModuleList(MapPredictor(dims[STAGE]) for _ in pruning_loc)
        self.decisions: tuple[Tensor, ...] = ()
        """Of the last training pass, one `(B, places)` per predictor: 1 for the slow way, 0 for the fast one."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, images: Tensor) -> Tensor:
        """The last map `(B, C, H, W)` of images `(B, 3, H, W)`.

        Raises:
            MethodError: the images are not of the size that it was built for.
        """
        check_image_shape(images, self.image_shape)
        x = images
        decisions: list[Tensor] = []
        for stage, (down, blocks) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x, route = down(x), None
            for index, block in enumerate(cast("nn.ModuleList", blocks)):
                if stage == STAGE and index in self.pruning_loc:
                    route = self._route(self.pruning_loc.index(index), x, decisions)
                x = block(x, route)
        if self.training:
            self.decisions = tuple(decisions)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)` of normalised images `(B, 3, H, W)`."""
        return cast("Tensor", self.head(self.norm(self.features(images).mean(dim=(2, 3)))))

    def ratio_loss(self) -> Tensor:
        """How far the shares that took the slow way in the last training pass are from `sparse_ratio`.

        Raises:
            MethodError: there was no training pass.
        """
        return ratio_loss(self.decisions, self.ratios)

    def _route(self, predictor: int, x: Tensor, decisions: list[Tensor]) -> Route:
        scores = self.score_predictor[predictor](x).flatten(2).transpose(1, 2)
        before = decisions[-1] if decisions else None
        route = chosen(scores, self.ratios[predictor], before, training=self.training)
        if route.decision is not None:
            decisions.append(route.decision)
        return route


METHOD = ClassifierMethod(
    id="dynamicvit-convnext",
    title="DynamicViT on ConvNeXt",
    idea="In ConvNeXt's third stage, learned predictors say which places take a block's MLP and which a single layer.",
    acts="stage 3, from the first predictor on",
    paper=SPARSIFICATION,
    build=DynamicConvNeXt,
    variants={
        "convnext-t-0.7": Variant(note=DRIVE),
        "convnext-s-0.7": Variant(config={"depths": (3, 3, 27, 3), "pruning_loc": (3, 6, 9)}, note=DRIVE),
        "convnext-b-0.7": Variant(
            config={"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024), "pruning_loc": (3, 6, 9)}, note=DRIVE
        ),
    },
    layout=Layout(wrappers=LAYOUT.wrappers),
)
