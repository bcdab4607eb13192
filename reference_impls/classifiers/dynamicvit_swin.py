"""DynamicViT on Swin: in the third stage, predictors say which tokens take a block's MLP and which a single layer."""

from typing import cast

from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from reference_impls.classifiers.dynamicvit_convnext import SPARSIFICATION
from reference_impls.layers.image_checks import check_image_shape
from reference_impls.layers.swin import PatchMerging, SwinBlock
from reference_impls.layers.token_predictor import TokenPredictor, ratio_loss
from reference_impls.layers.two_paths import Route, check_ratios, chosen
from reference_impls.reducers.dynamicvit import DRIVE, LAYOUT
from tokenmark.contracts import ClassifierMethod, Layout, MethodError, Variant

__all__ = ["METHOD", "DynamicSwin"]

PATCH, STAGE = 4, 2


class FastLayer(nn.Module):
    """What takes the MLP's place: a norm and one linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, N, C)` to `(B, N, C)`."""
        out: Tensor = self.fc1(x)
        return out


class TwoPathBlock(SwinBlock):
    """Swin's block, in which some tokens take a single layer in place of the MLP; all attend."""

    def __init__(self, width: int, heads: int, grid: tuple[int, int], window: int, *, shifted: bool) -> None:
        super().__init__(width, heads, grid, window, shifted=shifted)
        self.fastmlp = FastLayer(width)

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """Of maps `(B, H, W, C)` the next; without a `route` all tokens take the MLP."""
        if route is None:
            return super().forward(x)
        tokens = self.attend(x).flatten(1, 2)
        tokens = tokens + route.run(tokens, self._slow, self.fastmlp)
        return tokens.reshape(x.shape)

    def _slow(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.mlp(self.norm2(x)))


class SwinStage(nn.Module):
    """The blocks of one resolution, every other one shifted; with predictors two ways from the first of these on."""

    def __init__(
        self, width: int, heads: int, grid: tuple[int, int], depth: int, window: int, predicted: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.predicted = predicted
        first = predicted[0] if predicted else depth
        self.blocks = nn.ModuleList(
            (TwoPathBlock if index >= first else SwinBlock)(width, heads, grid, window, shifted=index % 2 == 1)
            for index in range(depth)
        )
        if predicted:
            self.score_predictor = nn.ModuleList(TokenPredictor(width) for _ in predicted)

    def forward(self, x: Tensor, ratios: tuple[float, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """From maps `(B, H, W, C)` to maps, and the decisions of a training pass."""
        route = None
        decisions: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            if index in self.predicted:
                stage, before = self.predicted.index(index), decisions[-1] if decisions else None
                scores = self.score_predictor[stage](x.flatten(1, 2), before)
                route = chosen(scores, ratios[stage], before, training=self.training)
                if route.decision is not None:
                    decisions.append(route.decision)
            x = block(x) if route is None else block(x, route)
        return x, tuple(decisions)


class DynamicSwin(nn.Module):
    """Swin with two ways through the blocks of its third stage, from the first predictor on."""

    def __init__(
        self,
        img_size: int = 224,
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        num_heads: tuple[int, ...] = (3, 6, 12, 24),
        window_size: int = 7,
        sparse_ratio: tuple[float, ...] = (0.7, 0.5, 0.3),
        pruning_loc: tuple[int, ...] = (1, 2, 3),
        num_classes: int = 1000,
    ) -> None:
        """`pruning_loc`: blocks of the third stage before which a predictor acts; `sparse_ratio`: what it keeps.

        Raises:
            MethodError: windows do not tile the maps of `img_size`.
            BudgetError: `pruning_loc` or `sparse_ratio` are impossible.
        """
        super().__init__()
        check_ratios(pruning_loc, sparse_ratio, depths[STAGE])
        least = PATCH * 2 ** (len(depths) - 1)
        sides = [img_size // PATCH // 2**stage for stage in range(len(depths))]
        if img_size < least or img_size % least or any(side % min(side, window_size) for side in sides):
            raise MethodError(f"img_size {img_size} gives maps of {sides} that windows of {window_size} do not tile")
        self.image_shape, self.ratios = (3, img_size, img_size), sparse_ratio
        self.patch_embed = PatchEmbed(
            img_size, PATCH, embed_dim=embed_dim, norm_layer=nn.LayerNorm, flatten=False, output_fmt="NHWC"
        )
        self.layers = nn.ModuleList()
        for stage, (depth, heads, side) in enumerate(zip(depths, num_heads, sides, strict=True)):
            width, predicted = embed_dim * 2**stage, pruning_loc if stage == STAGE else ()
            layer = SwinStage(width, heads, (side, side), depth, window_size, predicted)
            if stage < len(depths) - 1:
                layer.downsample = PatchMerging(width)
            self.layers.append(layer)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        self.decisions: tuple[Tensor, ...] = ()
        """Of the last training pass, one `(B, tokens)` per predictor: 1 for the slow way, 0 for the fast one."""

    def features(self, images: Tensor) -> Tensor:
        """The last stage's tokens after the norm, `(B, H, W, C)`, of images `(B, 3, H, W)`.

        Raises:
            MethodError: the images are not of the size that it was built for.
        """
        check_image_shape(images, self.image_shape)
        x, last = self.patch_embed(images), len(self.layers) - 1
        for stage, layer in enumerate(self.layers):
            x, decisions = layer(x, self.ratios)
            if self.training and stage == STAGE:
                self.decisions = decisions
            x = x if stage == last else cast("nn.Module", layer.downsample)(x)
        return cast("Tensor", self.norm(x))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)` of normalised images `(B, 3, H, W)`."""
        return cast("Tensor", self.head(self.features(images).mean(dim=(1, 2))))

    def ratio_loss(self) -> Tensor:
        """How far the shares that took the slow way in the last training pass are from `sparse_ratio`.

        Raises:
            MethodError: there was no training pass.
        """
        return ratio_loss(self.decisions, self.ratios)


METHOD = ClassifierMethod(
    id="dynamicvit-swin",
    title="DynamicViT on Swin",
    idea="In Swin's third stage, learned predictors say which tokens take a block's MLP and which a single layer.",
    acts="stage 3, from the first predictor on",
    paper=SPARSIFICATION,
    build=DynamicSwin,
    variants={
        "swin-t-0.7": Variant(note=DRIVE),
        "swin-s-0.7": Variant(config={"depths": (2, 2, 18, 2), "pruning_loc": (2, 4, 6)}, note=DRIVE),
        "swin-b-0.7": Variant(
            config={
                "embed_dim": 128,
                "depths": (2, 2, 18, 2),
                "num_heads": (4, 8, 16, 32),
                "pruning_loc": (2, 4, 6),
            },
            note=DRIVE,
        ),
    },
    layout=Layout(wrappers=LAYOUT.wrappers),
)
