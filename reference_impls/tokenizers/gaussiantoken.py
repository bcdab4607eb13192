"""GaussianToken: an image as featured 2-D Gaussians, whose features are codes, drawn onto a grid and decoded."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.gaussian_queries import GaussianQueries, Gaussians
from reference_impls.layers.magvit_conv import MagvitDecoder, MagvitEncoder, MagvitSize
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import nearest_rows
from reference_impls.layers.splatting import splat
from reference_impls.layers.token_checks import LATENT_BITS, bits_of, check_latents
from reference_impls.layers.tokenizer import ImageTokenizer, from_signed, latents_of, to_signed
from tokenmark.contracts import Layout, MethodError, Paper, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "GaussianToken", "release_arguments"]

SHAPE = 5
"""Numbers that describe a Gaussian beside its features: x, y, rotation, two scales."""


class AveragedCodebook(nn.Module):
    """The nearest codebook row, by squared Euclidean distance; rows are moving averages, kept as buffers."""

    embed: Tensor

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(1, codebook_size, dim))
        # Statistics of training: sums behind the averages, and whether k-means has set the rows up (1 in a release).
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(1, codebook_size))
        self.register_buffer("embed_avg", torch.zeros(1, codebook_size, dim))

    def forward(self, latents: Tensor) -> Tensor:
        """Codes of latents `(..., D)`, int64; ties go to the lowest index."""
        with torch.autocast(latents.device.type, enabled=False):
            return nearest_rows(at_least_float32(latents), at_least_float32(self.embed[0]))

    def lookup(self, codes: Tensor) -> Tensor:
        """Rows `(..., D)` of int64 `codes`."""
        return functional.embedding(codes, at_least_float32(self.embed[0]))


class GaussianToken(ImageTokenizer):
    """GaussianToken (arXiv 2501.15619). A token is a Gaussian, and only its features are quantised.

    Its centre, rotation and scales are real numbers that the decoder needs as well. `Tokens.latents` are therefore
    `(B, N, 6)`: x, y, rotation, two scales, and the code of the features as a number; the bits are 32 for each of the
    first five, and the logarithm of the codebook's size.

    UNVERIFIED: the release's rasteriser runs on CUDA only and was not run; see `layers.splatting.splat`. Everything up
    to the Gaussians, the codes, and the decoder behind the rasteriser, are the release's.

    Args:
        image_size: Side of the images, in pixels.
        ch: Width that `ch_mult` multiplies.
        ch_mult: One factor per level of the convolutions, finest first.
        num_res_blocks: Residual blocks per level, and in the middle.
        embed_dim: Width of the map and of the queries; a multiple of 32.
        z_channels: Channels of a Gaussian's features.
        codebook_size: Number of codes of the features.
        num_gaussians: Number of tokens.
        attn_layers: Layers of the map's attention, and of each round of refinement.
        rounds: Rounds of refinement.
        scale_range: Smallest and, before training, largest scale, in cells of the map.
    """

    channels = SHAPE + 1

    def __init__(
        self,
        *,
        image_size: int,
        ch: int = 128,
        ch_mult: Sequence[int],
        num_res_blocks: int = 4,
        embed_dim: int = 64,
        z_channels: int,
        codebook_size: int = 1024,
        num_gaussians: int,
        attn_layers: int = 2,
        rounds: int = 3,
        scale_range: tuple[float, float] = (0.1, 4.0),
    ) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"ch": ch, "ch_mult": ch_mult, "num_res_blocks": num_res_blocks}
        size = MagvitSize(**sizes, z_channels=embed_dim)
        if image_size % size.factor:
            raise MethodError(f"image_size must be a multiple of {size.factor}, got {image_size}")
        if embed_dim % 32:
            raise MethodError(f"embed_dim must be a multiple of 32, for its group norm, got {embed_dim}")
        if rounds < 1:
            raise MethodError(f"rounds must be 1 or more, got {rounds}")
        self.image_size, self.max_tokens = image_size, num_gaussians
        self.shape = (image_size // size.factor, image_size // size.factor)
        self.encoder = MagvitEncoder(size)
        self.decoder = MagvitDecoder(MagvitSize(**sizes, z_channels=z_channels))
        self.quantize = AveragedCodebook(codebook_size, z_channels)
        self.gs_embed = GaussianQueries(
            self.shape,
            width=embed_dim,
            channels=z_channels,
            count=num_gaussians,
            depth=attn_layers,
            rounds=rounds,
            scale_range=(scale_range[0], scale_range[1]),
        )

    @property
    def codebook_size(self) -> int:
        """Number of codes of the features."""
        return self.quantize.embed.shape[1]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """None: a token is no code alone."""
        return ()

    @property
    def bits_per_token(self) -> float:
        """Five numbers as float32, and a code."""
        return LATENT_BITS * SHAPE + bits_of(self.codebook_size)

    def _check_tokens(self, tokens: Tokens) -> None:
        codes = check_latents(tokens, self.max_tokens, self.channels)[..., SHAPE]
        if ((codes != codes.floor()) | (codes < 0) | (codes >= self.codebook_size)).any():
            raise MethodError(f"the last channel of a token is a code: whole numbers, 0 to {self.codebook_size - 1}")

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:  # noqa: ARG002
        found = self.gaussians(images)
        parts = [found.means, found.rotations, found.scales, self.quantize(found.features)[..., None]]
        latents = torch.cat([at_least_float32(part) for part in parts], dim=-1)
        lengths = torch.full((len(images),), self.max_tokens, dtype=torch.int64, device=images.device)
        return Tokens(lengths=lengths, bits=lengths.double() * self.bits_per_token, latents=latents)

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        means, rotations, scales, codes = at_least_float32(latents_of(tokens)).split([2, 1, 2, 1], dim=-1)
        features = self.quantize.lookup(codes.squeeze(-1).long())
        return from_signed(self.decode_gaussians(Gaussians(means, scales, rotations, features)))

    def gaussians(self, images: Tensor) -> Gaussians:
        """Differentiable: Gaussians of images in [0, 1], their features not quantised."""
        found: Gaussians = self.gs_embed(self.encoder(to_signed(images)))
        return found

    def drawn(self, gaussians: Gaussians) -> Tensor:
        """Differentiable: the map `(B, z_channels, h, w)` that Gaussians make together (unverified)."""
        return splat(gaussians.means, gaussians.scales, gaussians.rotations, gaussians.features, self.shape)

    def decode_gaussians(self, gaussians: Gaussians) -> Tensor:
        """Differentiable: images in [-1, 1], not clamped, of Gaussians."""
        return at_least_float32(self.decoder(self.drawn(gaussians).to(self.number_type)))


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `GaussianToken` for the release's configuration; MethodError for opacities, which none has."""
    if config.get("include_opa"):
        raise MethodError("include_opa: no release gives its Gaussians opacities, and neither does this one")
    names = ("image_size", "ch", "ch_mult", "num_res_blocks", "embed_dim", "z_channels", "codebook_size")
    return {
        **{name: config[name] for name in (*names, "attn_layers", "rounds")},
        "num_gaussians": config["num_gs"],
        # The largest scale in use comes with the checkpoint; the final range is where training leads it.
        "scale_range": config["initial_scale_range"],
    }


RENAMES = (
    (r"^img_(encoder|decoder)\.mid_block\.", r"\1.mid."),
    (r"^img_(encoder|decoder)\.", r"\1."),
    (r"^quantize\._codebook\.", "quantize."),
    (r"^gs_embed\.(?:fm_lifter|gaussian_lifter)\.", "gs_embed."),
    (r"^gs_embed\.attn_encoder\.layers\.", "gs_embed.attn_encoder."),
    (r"\.mlp\.3\.", ".mlp.2."),
)

NOTE = (
    "no weights are linked from github.com/ChrisDong-THU/GaussianToken; the rasteriser follows the formula of its CUDA "
    "kernels, which were read and not run: what it draws, and images, are unverified against the release"
)

METHOD = TokenizerMethod(
    id="gaussiantoken",
    title="GaussianToken",
    idea="A token is a 2-D Gaussian with a place, a shape and a coded feature; together they draw the decoder's map",
    paper=Paper(
        title="GaussianToken: An Effective Image Tokenizer with 2D Gaussian Splatting",
        authors="Jiajun Dong, Chengkun Wang, Wenzhao Zheng, Lei Chen, Jiwen Lu, Yansong Tang",
        year=2025,
        url="https://arxiv.org/abs/2501.15619",
    ),
    build=GaussianToken,
    from_release=release_arguments,
    layout=Layout(wrappers=("state_dict",), ignored=("loss.",), shadow="model_ema.", renames=RENAMES),
    variants={
        "imagenet-256": Variant(
            config={"image_size": 256, "ch_mult": (1, 2, 2, 4), "z_channels": 8, "num_gaussians": 256}, note=NOTE
        ),
        "cifar-64": Variant(
            config={"image_size": 32, "ch_mult": (1, 2), "z_channels": 3, "num_gaussians": 64}, note=NOTE
        ),
    },
)
