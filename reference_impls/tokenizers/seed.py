"""SEED-2: 32 tokens that say what an image shows, in an order."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

import torch
from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.models.beit import Block as BeitBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.q_former import QFormer
from reference_impls.layers.quantizers import VectorQuantizer
from reference_impls.layers.token_checks import check_codes
from reference_impls.layers.tokenizer import CodeTokenizer
from tokenmark.contracts import MethodError, Paper, Release, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "Seed", "release_arguments"]

MLP_RATIO = 4.3637
"""Of EVA-CLIP's giant model."""
HEADS = 12
"""Of the decoder's blocks, whatever their width."""
NORM: Any = partial(nn.LayerNorm, eps=1e-6)


class EvaTower(nn.Module):
    """The vision transformer of EVA-CLIP (arXiv 2303.15389), class token kept, without a norm at its end.

    Args:
        image_size: Side of the images, in pixels.
        patch_size: Side of a patch, in pixels.
        dim: Width.
        depth: Number of blocks.
        heads: Attention heads.
    """

    def __init__(self, *, image_size: int, patch_size: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (image_size // patch_size) ** 2 + 1, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch_size, stride=patch_size)})
        # BEiT's block: queries and values have a bias, keys none.
        sizes: dict[str, Any] = {"qkv_bias": True, "mlp_ratio": MLP_RATIO, "norm_layer": NORM}
        self.blocks = nn.Sequential(*(BeitBlock(dim, heads, **sizes) for _ in range(depth)))

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, S, S)` to features `(B, 1 + patches, dim)`."""
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        start = self.cls_token.expand(len(images), -1, -1)
        hidden = torch.cat([start.to(patches.dtype), patches], dim=1) + self.pos_embed
        if not len(images):
            return hidden  # timm's block cannot take an empty batch
        out: Tensor = self.blocks(hidden)
        return out


class Seed(CodeTokenizer):
    """SEED's second tokenizer (arXiv 2310.01218, section 3.1): a causal Q-Former over a frozen EVA-CLIP, quantised.

    Its tokens stand for one image embedding of unCLIP (`embed`), from which Stable Diffusion's unCLIP draws some image
    of the same content. That decoder is no part of it, and so `decode` is an error: nothing here gives pixels.

    Args:
        image_size: Side of the images, in pixels; the release resizes to it without cropping.
        vit: Arguments of `EvaTower` without `image_size`.
        bert: Arguments of `QFormer` without `context`.
        queries: Number of tokens.
        codebook_size: Number of codes.
        codebook_dim: Channels of a code.
        decode_depth: Blocks behind the codebook.
        features: Channels of the image embedding.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        vit: Mapping[str, int],
        bert: Mapping[str, int],
        queries: int = 32,
        codebook_size: int = 8192,
        codebook_dim: int = 32,
        decode_depth: int = 4,
        features: int = 1024,
    ) -> None:
        super().__init__()
        if bert["dim"] % HEADS:
            raise MethodError(f"the decoder has {HEADS} heads: its width must be a multiple, got {bert['dim']}")
        self.image_size, self.max_tokens = image_size, queries
        for name, values in (("mean", OPENAI_CLIP_MEAN), ("std", OPENAI_CLIP_STD)):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1), persistent=False)
        width = bert["dim"]
        self.visual_encoder = EvaTower(image_size=image_size, **vit)
        self.ln_vision = nn.LayerNorm(vit["dim"])
        self.query_tokens = nn.Parameter(0.02 * torch.randn(1, queries, width))
        self.Qformer = nn.ModuleDict({"bert": QFormer(**bert, context=vit["dim"])})
        self.encode_task_layer = _bottleneck(width, width, codebook_dim)
        self.quantize = VectorQuantizer(codebook_size, codebook_dim)
        self.decode_task_layer = _bottleneck(codebook_dim, codebook_dim, width)
        # Trained to give back the text side's features: in the checkpoint, and of no use here.
        self.pos_embed, self.blocks = _positions(queries, width), _blocks(width, decode_depth)
        self.pos_embed_image, self.blocks_image = _positions(queries, width), _blocks(width, decode_depth)
        narrowing = [nn.Linear(width, 256, bias=False), nn.ReLU(), nn.Linear(256, 128, bias=False), nn.ReLU()]
        self.image_down = nn.Sequential(*narrowing, nn.Linear(128, 32, bias=False))
        self.distill_image_proj = nn.Linear(queries * 32, features)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The only codebook's."""
        return self.quantize.codebook_sizes

    def normalised(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as CLIP takes them."""
        return (images - self.mean) / self.std

    def encode_queries(self, images: Tensor) -> Tensor:
        """What the Q-Former gathers of normalised images, `(B, N, width)`."""
        features = self.ln_vision(self.visual_encoder(images))
        out: Tensor = self.Qformer["bert"](self.query_tokens.expand(len(images), -1, -1), features)
        return out

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, N)`."""
        codes: Tensor = self.quantize(self.encode_task_layer(self.encode_queries(self.normalised(images)))).codes
        return codes

    @torch.no_grad()
    def embed(self, tokens: Tokens) -> Tensor:
        """Image embeddings `(B, features)` of unCLIP; MethodError for tokens that are not this tokenizer's."""
        codes = check_codes(tokens, self.codebook_sizes, self.max_tokens)
        return self.embed_rows(self.quantize.lookup(codes))

    def embed_rows(self, rows: Tensor) -> Tensor:
        """Image embeddings `(B, features)` of codes' vectors `(B, N, codebook_dim)`."""
        hidden = self.decode_task_layer(rows.to(self.number_type)) + self.pos_embed_image
        narrow = self.image_down(self.blocks_image(hidden))
        return at_least_float32(self.distill_image_proj(narrow.flatten(1)))

    def decode_codes(self, codes: Tensor) -> NoReturn:  # noqa: ARG002
        """There are no pixels: raises MethodError."""
        raise MethodError(
            "SEED's tokens stand for an image embedding, not for pixels: give embed()'s result to Stable Diffusion's "
            "unCLIP decoder, which is not part of SEED"
        )


def _bottleneck(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def _positions(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(1, count, width))


def _blocks(width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width, HEADS, qkv_bias=True, norm_layer=NORM) for _ in range(depth)))


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Seed` for a release's configuration."""
    return {
        "image_size": config["image_size"],
        "vit": {name: config["vit"][name] for name in ("patch_size", "dim", "depth", "heads")},
        "bert": {name: config["bert"][name] for name in ("dim", "layers", "heads", "mlp", "positions")},
        "queries": config["num_query_token"],
        "codebook_size": config["n_embed"],
        "codebook_dim": config["codebook_embed_dim"],
        "decode_depth": config["decode_depth"],
        "features": config["image_features_dim"],
    }


METHOD = TokenizerMethod(
    id="seed",
    title="SEED-2",
    idea="32 tokens with a causal order hold what an image means, for a language model to read and to write",
    paper=Paper(
        title="Making LLaMA SEE and Draw with SEED Tokenizer",
        authors="Yuying Ge, Sijie Zhao, Ziyun Zeng, Yixiao Ge, Chen Li, Xintao Wang, Ying Shan",
        year=2023,
        url="https://arxiv.org/abs/2310.01218",
    ),
    build=Seed,
    from_release=release_arguments,
    variants={
        "seed-2": Variant(
            config={
                "image_size": 224,
                "vit": {"patch_size": 14, "dim": 1408, "depth": 39, "heads": 16},
                "bert": {"dim": 768, "layers": 12, "heads": 12, "mlp": 3072, "positions": 512},
            },
            release=Release("AILab-CVC/seed-tokenizer-2", "seed_quantizer.pt", licence="Apache-2.0 (Tencent terms)"),
            note="It encodes to an image embedding of unCLIP and has no pixel decoder. The release loads its file "
            "leniently, and runs in float16: should the frozen EVA-CLIP be missing there, it is in a file of its own",
        )
    },
)
