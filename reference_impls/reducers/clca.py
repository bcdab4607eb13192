"""CLCA: EViT or Top-K with a cache of what was dropped, and a classifier that reads the class token of many layers."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reference_impls.layers.class_attention import keep_and_fuse
from reference_impls.layers.reduction import Reduction, TokenState
from reference_impls.layers.stages import KEEP_RATE, check_blocks
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Layout, Paper


@dataclass(frozen=True, slots=True)
class ClcaSettings:
    """What every stage keeps, what is cached between stages, and how the classifier reads the layers."""

    keep_rate: float | tuple[float, ...] = 0.7
    """What every stage keeps, or each of `blocks`: ceil(rate * tokens beside the prefix that enter it)."""
    blocks: tuple[int, ...] = (3, 6, 9)
    """0-based blocks that reduce; after each the cache is emptied into the tokens."""
    fuse: bool = True
    """Whether the dropped tokens leave one behind (EViT), or none (Top-K)."""
    carriers: int = 1
    """Learned tokens at the end, which are ranked like patches; every block caches the last tokens that there are."""
    pool_class: bool = False
    """Whether the cached mean takes in the prefix tokens."""
    pool_carriers: bool = False
    """Whether the cached mean takes in the carriers before the first reduction."""
    recover_at_last: bool = True
    """Whether the cache is emptied into the tokens once more, before the last block."""
    filters: int = 2
    """Of the classifier's convolution over layers, for every channel; 0: one linear mix of the layers."""


class CrossLayerCache(Reduction):
    """Every block caches the mean of its patches and its carriers; the tokens get them back after each reduction.

    A carrier holds its position in itself and joins after the model's whole embedding. The release adds positions out
    of a longer `pos_embed`, and its models have no last norm: its checkpoints do not load here as they are.

    Carried: the class tokens of layers `(B, C, layers so far)`, and the cache `(B, M, C)`.
    """

    needs_class_token = True
    makes_tokens = True

    def __init__(self, backbone: Backbone, settings: ClcaSettings) -> None:
        rates, depth, carriers = _rates(backbone, settings), backbone.depth, settings.carriers
        recovers = {*settings.blocks, *([depth - 2] if settings.recover_at_last else [])}
        tokens, cached, schedule, kept, pools = backbone.tokens + carriers, 0, [], {}, []
        pooled = tokens if settings.pool_carriers else backbone.tokens
        for block in range(depth):
            left, entering = tokens, tokens - backbone.prefix
            keep = math.ceil(rates.get(block, 1.0) * entering)
            if keep < entering:
                kept[block], left = keep, backbone.prefix + keep + settings.fuse
            schedule.append(BlockTokens(attention=tokens, mlp=left))
            tokens = left
            if block in recovers:
                pooled, tokens, cached = left, left + cached, 0
            if block < max(recovers):
                cached += 1 + carriers
            pools.append(pooled)
        super().__init__(backbone, tuple(schedule))
        self.kept, self.recovers, self.pools, self.fuse = kept, recovers, pools, settings.fuse
        self.pool_start = 0 if settings.pool_class else backbone.prefix
        self.reads = {*settings.blocks, depth - 1}
        self.carriers = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, carriers, backbone.width), std=0.02))
        self.aggregation = layer_classifier(backbone.width, len(self.reads), settings.filters, backbone.outputs)
        _, head, per_token = backbone.ends_cost
        self.saved_macs = head + per_token * schedule[-1].mlp

    @property
    def extra_macs(self) -> int:
        """The fused tokens and the classifier, less the model's own, which does not run."""
        width = self.carriers.shape[2]
        fused = sum(self.schedule[block].attention for block in self.kept) * width if self.fuse else 0
        layers = [layer for layer in self.aggregation if isinstance(layer, nn.Linear | nn.Conv1d)]
        first = layers[0].weight.numel() * (width if isinstance(layers[0], nn.Linear) else 1)
        return fused + first + layers[1].weight.numel() - self.saved_macs

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Append the carriers to the embedding."""
        if block:
            return state
        x = torch.cat((state.x, self.carriers.expand(state.x.shape[0], -1, -1).to(state.x.dtype)), dim=1)
        return replace(state, x=x, carried=(x[:, 0, :, None][..., :0], x[:, :0]))

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep what the class token attends to most, averaged over heads, in falling score."""
        if block not in self.kept:
            return state
        score = seen.class_row().mean(dim=1)[:, self.prefix :]
        return keep_and_fuse(state, score, self.kept[block], self.prefix, fuse=self.fuse)

    def after_block(self, block: int, state: TokenState) -> TokenState:
        """Empty the cache into the tokens where they were reduced, then cache what this block gives."""
        x, (classes, cache) = state.x, state.carried
        if block in self.recovers:
            x, cache = torch.cat((x, cache), dim=1), cache[:, :0]
        if block < max(self.recovers):
            mean = x[:, self.pool_start : self.pools[block]].mean(dim=1, keepdim=True)
            cache = torch.cat((cache, mean, x[:, x.shape[1] - self.carriers.shape[1] :]), dim=1)
        if block in self.reads:
            classes = torch.cat((classes, x[:, 0, :, None]), dim=2)
        return replace(state, x=x, carried=(classes, cache))

    def head(self, backbone: Backbone, state: TokenState) -> Tensor:
        """Logits of the class tokens after every reduction and after the last block; the model's head is left out."""
        del backbone
        logits: Tensor = self.aggregation(state.carried[0])
        return logits


def layer_classifier(width: int, layers: int, filters: int, classes: int) -> nn.Sequential:
    """From class tokens `(B, width, layers)` to logits `(B, classes)`."""
    if filters == 0:
        return nn.Sequential(
            nn.Linear(layers, 1), nn.Flatten(), nn.ReLU(), nn.LayerNorm(width), nn.Linear(width, classes)
        )
    return nn.Sequential(
        nn.BatchNorm1d(width),
        nn.Conv1d(width, width * filters, layers, groups=width),
        nn.BatchNorm1d(width * filters),
        nn.GELU(),
        nn.Conv1d(width * filters, classes, 1),
        nn.Flatten(),
    )


def _rates(backbone: Backbone, settings: ClcaSettings) -> dict[int, float]:
    """The share that each reducing block keeps.

    Raises:
        BudgetError: rates outside (0, 1] or not as many as blocks, or too few carriers or filters.
    """
    blocks, rates = settings.blocks, settings.keep_rate
    check_blocks(backbone, blocks)
    rates = rates if isinstance(rates, tuple) else (rates,) * len(blocks)
    if len(rates) != len(blocks):
        raise BudgetError(f"keep_rate has {len(rates)} rates for {len(blocks)} blocks: give one for each")
    if not all(0 < rate <= 1 for rate in rates):
        raise BudgetError(f"keep_rate {settings.keep_rate} must lie above 0 and not above 1")
    if settings.carriers < 0 or settings.filters < 0:
        raise BudgetError(f"carriers {settings.carriers} and filters {settings.filters} must not be negative")
    return dict(zip(blocks, rates, strict=True))


METHOD = reducer(
    CrossLayerCache,
    id="clca",
    title="CLCA (cross-layer cache aggregation)",
    idea="Reduce as EViT or Top-K, give cached means and carrier tokens back, and classify from many layers at once.",
    acts="3 blocks, after attention; the tokens get the cache back after each",
    paper=Paper(
        title="Cross-Layer Cache Aggregation for Token Reduction in Ultra-Fine-Grained Image Recognition",
        authors="Rios, Yuanda, Ghanz, Yu, Lai, Hu",
        year=2024,
        url="https://arxiv.org/abs/2501.00243",
    ),
    settings=ClcaSettings,
    knob=KEEP_RATE,
    trained=True,
    layout=Layout(
        renames=(
            (r"^ifa_head\.0\.", "reduction.aggregation."),
            (r"^clr$", "reduction.carriers"),
            (r"^(?!reduction\.)", "model."),
        )
    ),
)
