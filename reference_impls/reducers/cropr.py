"""Token Cropr: after every block drop the patches that a learned query scores lowest; the last block gets them back."""

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from reference_impls.layers.query_router import QueryRouter
from reference_impls.layers.reduction import Reduction, TokenState, select, with_prefix
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Knob, Layout, MethodError, Paper


@dataclass(frozen=True, slots=True)
class CroprSettings:
    """How many patches go after each block, whether they come back, and what layers the routers have (as released)."""

    r: int = 8
    """Patches that every router drops. The first drops as many more as there are prefix tokens (the release: one more,
    for its class token), so that the count of all tokens is what is left of the patches."""
    llf: bool = True
    """Last-layer fusion: the last block gets all dropped patches back."""
    heads: int = 1
    """Of the router; must divide the model's width."""
    pre_attn_norm: bool = False
    q_proj: bool = False
    k_proj: bool = False
    v_proj: bool = False
    mlp: bool = True
    mlp_ratio: float = 4.0


class Cropping(Reduction):
    """A router after every block but the last, and but the one before it if the patches come back there.

    Carried: which original token each token is; the dropped ones, and which they are; auxiliary logits.
    """

    def __init__(self, backbone: Backbone, settings: CroprSettings) -> None:
        kept = _kept(backbone, settings)
        super().__init__(backbone, _schedule(backbone, kept, settings.llf))
        if settings.heads < 1 or backbone.width % settings.heads:
            raise BudgetError(f"{settings.heads} heads do not divide the model's width of {backbone.width}")
        options = {name: value for name, value in asdict(settings).items() if name not in {"r", "llf"}}
        self.routers = nn.ModuleList(
            QueryRouter(backbone.width, backbone.outputs, **options) for _ in range(_stages(backbone, settings.llf))
        )
        self.kept, self.llf = kept, settings.llf
        self.auxiliary: tuple[Tensor, ...] = ()
        """Of the last training pass, the logits `(B, classes)` of every router's classifier."""

    @property
    def extra_macs(self) -> int:
        """The scores of every router that drops something."""
        costs = [(self.schedule[block].mlp, *self._router(block).macs) for block in range(len(self.kept))]
        return sum(tokens * for_each + once for tokens, for_each, once in costs)

    def after_block(self, block: int, state: TokenState) -> TokenState:
        """Drop what the schedule says; patches stay in falling score, of equal scores the earlier first."""
        if block >= len(self.kept):
            return state
        if not state.carried:
            everyone = torch.arange(state.x.shape[1], device=state.x.device).expand(state.x.shape[0], -1)
            state = replace(state, carried=(everyone, state.x[:, :0], everyone[:, :0]))
        which, dropped, which_dropped, *logits = state.carried
        if self.training:
            logits.append(self._router(block)(state.x))
        score = self._router(block).scores(state.x.detach())[:, self.prefix :]
        order = score.argsort(dim=1, descending=True, stable=True)
        stay, go = with_prefix(order[:, : self.kept[block]], self.prefix), order[:, self.kept[block] :] + self.prefix
        dropped = torch.cat((dropped, state.x.gather(1, go[..., None].expand(-1, -1, state.x.shape[2]))), dim=1)
        which_dropped = torch.cat((which_dropped, which.gather(1, go)), dim=1)
        return replace(select(state, stay), carried=(which.gather(1, stay), dropped, which_dropped, *logits))

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Bring the dropped patches back after the others, as they were and in the order in which they went."""
        if not self.llf or not state.carried or block != len(self.schedule) - 1:
            return state
        which, dropped, which_dropped = state.carried[:3]
        count, source = state.x.shape[1], state.source
        if source is not None:
            back = torch.arange(count, count + dropped.shape[1], device=source.device).expand_as(which_dropped)
            source = source.scatter(1, which_dropped, back)
        position = None if state.places is None else torch.cat((which, which_dropped), dim=1)
        return replace(state, x=torch.cat((state.x, dropped), dim=1), source=source, position=position)

    def head(self, backbone: Backbone, state: TokenState) -> Tensor:
        """The model's output; remembers the routers' logits of a training pass."""
        if self.training:
            self.auxiliary = state.carried[3:]
        return super().head(backbone, state)

    def auxiliary_loss(self, labels: Tensor) -> Tensor:
        """The sum of the routers' cross entropies in the last training pass, which the release adds to the model's.

        `labels`: classes `(B,)`, or their probabilities `(B, classes)`.

        Raises:
            MethodError: there was no training pass, or no router drops anything.
        """
        if not self.auxiliary:
            raise MethodError("the auxiliary loss is of a training pass: call the model in training mode first")
        return torch.stack([cross_entropy(logits, labels) for logits in self.auxiliary]).sum()

    def _router(self, block: int) -> QueryRouter:
        found = self.routers[block]
        assert isinstance(found, QueryRouter)  # noqa: S101  for the type
        return found


def _stages(backbone: Backbone, llf: bool) -> int:
    """How many routers there are."""
    return max(0, backbone.depth - (2 if llf else 1))


def _kept(backbone: Backbone, settings: CroprSettings) -> tuple[int, ...]:
    """How many patches each router leaves; none where nothing is dropped.

    Raises:
        BudgetError: r is negative, or so great that no patch would be left.
    """
    stages, r = _stages(backbone, settings.llf), settings.r
    if r == 0:
        return ()
    most = (backbone.patches - backbone.prefix - 1) // max(1, stages)
    if not 0 <= r <= most or not stages:
        raise BudgetError(
            f"r = {r} after {stages} of {backbone.depth} blocks leaves none of {backbone.patches} patches:"
            f" r must be 0 to {max(0, most) if stages else 0}"
        )
    return tuple(backbone.patches - backbone.prefix - r * stage for stage in range(1, stages + 1))


def _schedule(backbone: Backbone, kept: tuple[int, ...], llf: bool) -> tuple[BlockTokens, ...]:
    """The counts of every block: all tokens, then what routers left; all again in the last one if patches return."""
    if not kept:
        return backbone.unreduced()
    counts = [backbone.tokens, *(backbone.prefix + patches for patches in kept)]
    if llf:
        counts.append(backbone.tokens)
    return tuple(BlockTokens(count, count) for count in counts)


METHOD = reducer(
    Cropping,
    id="cropr",
    title="Token Cropr",
    idea="After every block, drop the patches that a learned query scores lowest; the last block gets them all back.",
    acts="after every block but the last two",
    paper=Paper(
        title="Token Cropr: Faster ViTs for Quite a Few Tasks",
        authors="Bergner, Lippert, Mahendran",
        year=2025,
        url="https://arxiv.org/abs/2412.00965",
    ),
    settings=CroprSettings,
    knob=Knob("r", "count"),
    trained=True,
    layout=Layout(renames=((r"^cropr\.", "reduction.routers."), (r"^(?!reduction\.)", "model."))),
)
