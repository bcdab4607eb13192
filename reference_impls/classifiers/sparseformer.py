"""SparseFormer, bootstrapped: a few tokens look at the image through boxes that they move, then run a ViT's blocks.

Read from the paper's abstract and accounts of paper and release (arXiv 2312.01987; the first SparseFormer is
2304.03768). A light stem gives features of a quarter of the image's sides; tokens that start alike, each with a learned
box, run four times through one focusing unit; widened, they look once more, and go with a class token through the later
two thirds of a pre-trained ViT's blocks. That part takes the ViT's weights (`inherit`). Trained are the focusing part
and the earlier half of the inherited blocks, so that the class token becomes the teacher's (`alignment_loss`). The
authors' checkpoints have keys of their own, which nothing here maps. What the accounts leave open, and what was taken:

- layers: a bias in the stem; sines and cosines of pi times side times frequency, as many as fill the width; one norm
  before each map that a token generates something with; boxes are moved by a norm and an MLP as wide as the token;
- the points' deviation is the unbiased one; mixing weights come in the order channels, points;
- the class token and its position: one learned token, the teacher's at first;
- the alignment: 1 - cosine of class tokens after the last norm.
"""

from functools import partial
from typing import Any, Literal, cast

import torch
from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.layers.activations import QuickGELU
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from reference_impls.layers.focusing import EPS, BoxCode, FocusingUnit, PixelStem, SampleAndMix, first_boxes
from reference_impls.layers.image_checks import check_image_shape
from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import ClassifierMethod, MethodError, Paper, Variant

__all__ = ["METHOD", "SparseFormer", "alignment_loss", "inherit"]

LOOKS = 4
"""How often the focusing unit runs."""


class SparseFormer(nn.Module):
    """A bootstrapped SparseFormer; the defaults are `btsp_augreg_base`.

    Args:
        img_size: Side of the images; features and boxes know no size, so that it is a matter of training alone.
        tokens: Tokens that look; the class token is one more.
        focus_dim: Their width while they focus.
        embed_dim: Their width in the inherited blocks, whose heads are 64 wide.
        depth: Number of inherited blocks.
        num_classes: Logits, or features of a CLIP model.
        pixels: What the weights know images as: "inception" (mean and deviation 0.5) or "clip".
        quick_gelu: Whether the inherited blocks have CLIP's approximation of GELU.
        head_bias: Whether the last map has a bias.
    """

    def __init__(
        self,
        *,
        img_size: int = 224,
        tokens: int = 48,
        focus_dim: int = 384,
        embed_dim: int = 768,
        depth: int = 8,
        num_classes: int = 1000,
        pixels: Literal["inception", "clip"] = "inception",
        quick_gelu: bool = False,
        head_bias: bool = True,
    ) -> None:
        super().__init__()
        if img_size % 4 or tokens < 1 or min(focus_dim, embed_dim) < 8 or pixels not in ("inception", "clip"):
            raise MethodError(
                f"img_size {img_size} must be a multiple of 4, tokens {tokens} 1 or more, widths {focus_dim} and"
                f" {embed_dim} 8 or more, pixels '{pixels}' inception or clip"
            )
        norm: Any = partial(nn.LayerNorm, eps=EPS)
        act: Any = QuickGELU if quick_gelu else nn.GELU
        self.image_shape, self.pixels = (3, img_size, img_size), pixels
        self.stem = PixelStem()
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, focus_dim), std=0.02))
        self.boxes = nn.Parameter(first_boxes(tokens))
        self.stages = nn.Parameter(nn.init.trunc_normal_(torch.empty(LOOKS, focus_dim), std=0.02))
        self.focus = FocusingUnit(focus_dim)
        self.widen = nn.Linear(focus_dim, embed_dim)
        self.look, self.code = SampleAndMix(embed_dim), BoxCode(embed_dim)
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, embed_dim), std=0.02))
        self.blocks = nn.ModuleList(
            Block(embed_dim, embed_dim // 64 or 1, qkv_bias=True, norm_layer=norm, act_layer=act) for _ in range(depth)
        )
        self.norm = norm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes, bias=head_bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)` of images `(B, 3, H, W)`, normalised by mean and deviation 0.5.

        Raises:
            MethodError: the images are of another size.
        """
        return cast("Tensor", self.head(self.features(images)))

    def features(self, images: Tensor) -> Tensor:
        """The class token after the last norm, `(B, C)`."""
        check_image_shape(images, self.image_shape)
        features = self.stem(self._as_known(images))
        tokens, boxes = self.focused(features)[-1]
        tokens = self.look(self.widen(tokens), boxes, features) + self.code(boxes)
        tokens = torch.cat((self.cls_token.expand(len(images), -1, -1).to(tokens.dtype), tokens), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return cast("Tensor", self.norm(tokens[:, 0]))

    def focused(self, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The tokens `(B, T, C)` and their boxes `(B, T, 4)` after each run of the focusing unit."""
        tokens = self.token.expand(len(features), len(self.boxes), -1)
        boxes, found = at_least_float32(self.boxes).repeat(len(features), 1, 1), []
        for stage in range(LOOKS):
            tokens, boxes = self.focus(tokens + self.stages[stage], boxes, features)
            found.append((tokens, boxes))
        return found

    def _as_known(self, images: Tensor) -> Tensor:
        """From mean and deviation 0.5 to those of the weights."""
        if self.pixels == "inception":
            return images
        mean, std = (images.new_tensor(each)[:, None, None] for each in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        return (images * 0.5 + 0.5 - mean) / std


def inherit(student: SparseFormer, teacher: VisionTransformer) -> None:
    """Give a student the last blocks, the norm and the head of a timm ViT; what is not to be trained is frozen.

    Of a teacher's N blocks the last 2 N / 3 are taken, of which the later half stays as it is, as do norm and head.

    Raises:
        MethodError: the teacher's parts do not fit.
    """
    try:
        for mine, its in zip(student.blocks, list(teacher.blocks)[-len(student.blocks) :], strict=True):
            mine.load_state_dict(its.state_dict())
        for part in ("norm", "head"):
            getattr(student, part).load_state_dict(getattr(teacher, part).state_dict())
    except (RuntimeError, ValueError) as error:
        raise MethodError(f"this teacher's blocks, norm or head do not fit: {' '.join(str(error).split())}") from error
    if teacher.cls_token is not None:
        student.cls_token.data.copy_(teacher.cls_token)
    for part in (*student.blocks[len(student.blocks) // 2 :], student.norm, student.head):
        part.requires_grad_(requires_grad=False)


def alignment_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of class tokens `(B, C)`, averaged over the batch; no label is asked for."""
    return (1 - cosine_similarity(student, teacher.detach(), dim=-1)).mean()


def _released(width: int, blocks: int, **others: Any) -> Variant:
    config = {"focus_dim": width // 2, "embed_dim": width, "depth": blocks, **others}
    note = "the authors keep it among the release files of github.com/showlab/sparseformer (MIT), under other keys"
    return Variant(config=config, note=note)


_CLIP = {"pixels": "clip", "quick_gelu": True, "head_bias": False}
METHOD = ClassifierMethod(
    id="sparseformer",
    title="SparseFormer (bootstrapped)",
    idea="Let a few tokens look at the image through boxes that they move, then run a pre-trained ViT's later blocks.",
    acts="before the first block: 48 or 63 tokens of the whole image",
    paper=Paper(
        title="Bootstrapping SparseFormers from Vision Foundation Models",
        authors="Gao, Tong, Lin, Chen, Shou",
        year=2024,
        url="https://arxiv.org/abs/2312.01987",
    ),
    build=SparseFormer,
    variants={
        "btsp_augreg_base": _released(768, 8),
        "btsp_augreg_large": _released(1024, 16),
        "btsp_openai_clip_base": _released(768, 8, num_classes=512, **_CLIP),
        "btsp_openai_clip_large": _released(1024, 16, tokens=63, num_classes=768, **_CLIP),
    },
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
