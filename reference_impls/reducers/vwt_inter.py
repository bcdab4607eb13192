"""Visual Word Tokenizer across images: before the first block, patches that show the same visual word become one token.

Read from the paper (arXiv 2411.15397, abstract) and accounts of the method; its release, GPL-3.0, was not opened. A
vocabulary of visual words is learned by mini-batch K-means on patches of pixels (`pixel_patches.fit_vocabulary`). A
patch whose nearest word is within a cosine distance of the threshold is labelled by it, any other patch has a label of
its own. Patches with one label become the mean of their embeddings, positions included. Tokens stand in the order of
labels: words by number, then the others by place. The release's main branch counts the labels of the others from the
patches' width, not from the number of words, so that the two kinds mix in large vocabularies: a defect, not followed.
What the accounts leave open, and what was taken:

- words and patches are compared as the model takes its images, normalised;
- attention is not proportional; a mean over tokens, where a model takes one, weighs a token by its patches;
- a mean has the place of its first patch, where blocks look at places.

Images end with different numbers of tokens. As it stands every image has as many rows as it has patches, those left
over are barred from attention, and nothing but the counts tells what was saved; `trim` cuts a batch to its longest
image, for which the device must be waited for, and an image alone then needs no mask: this is what to time.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reference_impls.layers.families.base import BlockView
from reference_impls.layers.matching import cosines
from reference_impls.layers.padding import head_of_live, refuse_attention_pooling
from reference_impls.layers.pixel_patches import patch_width, pixel_patches, read_vocabulary
from reference_impls.layers.reduction import Reduction, TokenState, merge_clusters, with_prefix
from reference_impls.layers.vit_attention import Attended, attend
from reference_impls.layers.vit_backbone import AttentionKind, Backbone
from reference_impls.layers.vit_driver import reducer
from reference_impls.reducers.vwt_intra import VWT
from tokenmark.contracts import MethodError


@dataclass(frozen=True, slots=True)
class VwtInterSettings:
    """The visual words, and how near to one a patch must be."""

    vocabulary: str = ""
    """Path of a file of words, `.npy` or `.safetensors` (its only tensor): `(words, channels * rows * columns)`."""
    drawn_words: int = 0
    """Draw so many words at random (seed 0) where no vocabulary is given: for the cost alone, they match nothing."""
    threshold: float = 0.1
    """The greatest cosine distance, 1 - cos, at which a patch takes a word's label; 0 to 2."""
    trim: bool = False
    """Whether to cut the rows that no image of the batch needs, as the release does. Shapes then depend on the images,
    which the host must wait for; the live tokens are the same."""


class VisualWords(Reduction):
    """Averages the patches of one visual word, once, before the first block."""

    adaptive = True
    words: Tensor

    def __init__(self, backbone: Backbone, settings: VwtInterSettings) -> None:
        super().__init__(backbone, backbone.unreduced())
        width = patch_width(backbone)
        refuse_attention_pooling(backbone, "vwt-inter")
        if not 0 <= settings.threshold <= 2:
            raise MethodError(f"threshold {settings.threshold} must lie from 0 to 2, a cosine distance")
        if bool(settings.vocabulary) == (settings.drawn_words > 0):
            raise MethodError(
                "vwt-inter needs visual words: fit them (fit_vocabulary) and give the file as vocabulary, or give "
                "drawn_words, to learn what it costs"
            )
        if settings.vocabulary:
            words = read_vocabulary(settings.vocabulary, width)
        else:
            words = torch.randn(settings.drawn_words, width, generator=torch.Generator().manual_seed(0))
        self.register_buffer("words", words, persistent=False)
        self.grid, self.threshold, self.trim = backbone.grid, settings.threshold, settings.trim

    @property
    def extra_macs(self) -> int:
        """The cosines of every patch and every word."""
        return self.grid[0] * self.grid[1] * self.words.numel()

    def alive(self, state: TokenState) -> Tensor:
        """How many tokens of each image are not there to fill up."""
        return super().alive(state) if state.size is None else (state.size > 0).sum(dim=1)

    def look_at(self, images: Tensor) -> tuple[Tensor, ...]:
        """The token of every patch, `(B, P)`, counted from the first patch's."""
        patches = pixel_patches(images, self.grid)
        return (grouped(word_labels(patches, self.words, self.threshold)),)

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Average the patches of each label."""
        if block > 0:
            return state
        token, count = state.carried[0], state.x.shape[1] - self.prefix
        if self.trim and len(token) > 0:
            count = int(token.amax()) + 1
        return merge_clusters(replace(state, carried=()), with_prefix(token, self.prefix), self.prefix + count)

    def attend(
        self, block: int, view: BlockView, state: TokenState, kind: AttentionKind
    ) -> tuple[TokenState, Attended]:
        """Run the attention of `block`; nobody sees the rows that fill up."""
        looks = state.looks(block, proportional=False)
        if state.size is not None and not (self.trim and len(state.x) == 1):
            barred = torch.zeros_like(state.size, dtype=state.x.dtype).masked_fill(state.size == 0, -torch.inf)
            barred = barred[:, None, None].expand(-1, -1, state.x.shape[1], -1)
            looks = replace(looks, bias=barred if looks.bias is None else looks.bias + barred)
        out, seen = attend(view.attention, view.norm1(state.x), looks, kind)
        return replace(state, x=state.x + view.residual1(out)), seen

    def head(self, backbone: Backbone, state: TokenState) -> Tensor:
        """The model's output, of the live tokens alone."""
        return super().head(backbone, state) if state.size is None else head_of_live(backbone, state, state.size)


def word_labels(patches: Tensor, words: Tensor, threshold: float) -> Tensor:
    """The label of every patch of `patches` `(B, P, D)`, int64 `(B, P)`, by `words` `(V, D)`.

    It is the number of the word of greatest cosine, the first of equal ones, if 1 - cos is at most `threshold`; else
    V + the patch's place.
    """
    best, word = cosines(patches, words[None]).max(dim=2)
    own = len(words) + torch.arange(patches.shape[1], device=patches.device)
    return torch.where(1 - best <= threshold, word, own)


def grouped(labels: Tensor) -> Tensor:
    """For every one of `labels` `(B, P)` its rank among its image's different labels, `(B, P)`, from 0."""
    ordered, order = labels.sort(dim=1, stable=True)
    rank = (ordered[:, 1:] != ordered[:, :-1]).cumsum(dim=1)
    rank = torch.cat((torch.zeros_like(order[:, :1]), rank), dim=1)
    return torch.zeros_like(order).scatter(1, order, rank)


METHOD = reducer(
    VisualWords,
    id="vwt-inter",
    title="Visual Word Tokenizer (inter-image)",
    idea="Before the first block, average the patches whose pixels show the same word of a visual vocabulary.",
    acts="before the first block",
    paper=VWT,
    settings=VwtInterSettings,
)
