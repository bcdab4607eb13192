"""LARP: a tokenizer of clips, whose tokens belong to no patch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.gaussian import draw_noise
from reference_impls.layers.larp_priors import LarpPrior
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import VectorQuantizer
from reference_impls.layers.token_checks import check_codes, need_noise, pack_codes
from reference_impls.layers.tokenizer import CodeTokenizer
from reference_impls.layers.video_vit import JointTransformer, LinePositions, PatchHead, VideoPatches, VideoPositions
from tokenmark.contracts import Layout, MethodError, Paper, Release, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "Larp", "release_arguments"]

PARTS = ("encoder_patches", "encoder_queries", "decoder_latents", "decoder_patches")
"""The four kinds of tokens that have positions."""


class Bottleneck(nn.Module):
    """Codes of few channels, compared on the unit sphere, between two linear layers.

    Args:
        inputs: Channels of the encoder.
        outputs: Channels of the decoder.
        codebook_size: Number of codes.
        dim: Channels of a code.
    """

    def __init__(self, inputs: int, outputs: int, *, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.in_linear, self.out_linear = nn.Linear(inputs, dim), nn.Linear(dim, outputs)
        self.regularizer = VectorQuantizer(codebook_size, dim, l2_norm=True)

    def sample(self, latents: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """Codes `(B, N)` of `latents` `(B, N, dim)`, drawn from the softmax of cosines over `temperature`.

        `noise` `(B, N)` is standard normal; the share of it that lies below tells where in the softmax's sum a code is.
        """
        with torch.autocast(latents.device.type, enabled=False):
            unit = functional.normalize(at_least_float32(latents), dim=-1)
            shares = (unit @ self.regularizer.codebook().T / temperature).softmax(-1).cumsum(-1)
            place = torch.special.ndtr(at_least_float32(noise)) * shares[..., -1]
            codes = torch.searchsorted(shares, place[..., None]).squeeze(-1)
        return codes.clamp(max=self.regularizer.codebook_size - 1)


class Larp(CodeTokenizer):
    """LARP (arXiv 2410.21264): learned queries gather a clip, a codebook quantises them.

    It is a tokenizer of video: `encode_video` and `decode_video` take clips. As a tokenizer of images, `encode` takes
    a still image as a clip of `frames` equal frames, which it was not trained for, and `decode` gives the first frame:
    the tokens and bits are then those of a whole clip.

    Args:
        image_size: Side of the frames, in pixels.
        frames: Frames of a clip.
        tokens: Tokens of a clip.
        patch_size: Side of a patch, in pixels.
        patch_frames: Frames of a patch.
        encoder: Width, depth and heads of the encoder.
        decoder: The same of the decoder.
        codebook_size: Number of codes.
        codebook_dim: Channels of a code.
        learned: Those of `PARTS` whose positions are learned; the others' are fixed.
        typed: Those of `PARTS` to which one learned vector is added.
        prior: Arguments of `LarpPrior` without `channels`; None without one. It does nothing but train.
        sample_codes: Draw codes, as the release does unless told `--det`, with which its numbers were measured.
        temperature: Of that draw.
    """

    def __init__(
        self,
        *,
        image_size: int,
        frames: int,
        tokens: int,
        patch_size: int,
        patch_frames: int,
        encoder: Mapping[str, int],
        decoder: Mapping[str, int],
        codebook_size: int,
        codebook_dim: int,
        learned: Sequence[str] = ("encoder_queries",),
        typed: Sequence[str] = (),
        prior: Mapping[str, int] | None = None,
        sample_codes: bool = False,
        temperature: float = 0.03,
    ) -> None:
        super().__init__()
        if image_size % patch_size or frames % patch_frames:
            raise MethodError(
                f"patches of {patch_frames} frames of {patch_size} pixels do not divide clips of {frames} frames of "
                f"{image_size} pixels"
            )
        self.image_size, self.max_tokens, self.frames, self.patch_frames = image_size, tokens, frames, patch_frames
        self.stochastic, self.temperature = sample_codes, temperature
        self.side = image_size // patch_size
        grid: dict[str, Any] = {"steps": frames // patch_frames, "side": self.side}
        of = {part: {"learned": part in learned, "typed": part in typed} for part in PARTS}
        inside, outside = encoder["width"], decoder["width"]
        self.x_embedder = VideoPatches(inside, patch_size, patch_frames)
        self.encoder_patches = VideoPositions(inside, **grid, **of["encoder_patches"])
        self.encoder_queries = LinePositions(inside, tokens, flat=True, **of["encoder_queries"])
        self.decoder_latents = LinePositions(outside, tokens, **of["decoder_latents"])
        self.decoder_patches = VideoPositions(outside, **grid, **of["decoder_patches"])
        self.encoder, self.decoder = JointTransformer(**encoder), JointTransformer(**decoder)
        self.bottleneck = Bottleneck(inside, outside, codebook_size=codebook_size, dim=codebook_dim)
        self.final_layer = PatchHead(outside, patch_size=patch_size, frames=patch_frames, side=self.side)
        self.prior_model = None if prior is None else LarpPrior(codebook_dim, **prior)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The only codebook's."""
        return self.bottleneck.regularizer.codebook_sizes

    @torch.no_grad()
    def encode_video(self, videos: Tensor, generator: torch.Generator | None = None) -> Tokens:
        """Tokens of clips `(B, 3, T, S, S)` in [0, 1]; fewer frames than `frames` take the first positions.

        Raises MethodError for other clips, for a number of frames that patches do not divide, and for a missing
        `generator` where codes are drawn.
        """
        shape = tuple(videos.shape)
        if not videos.is_floating_point() or len(shape) != 5 or (shape[1], *shape[3:]) != (3, *[self.image_size] * 2):
            size = self.image_size
            raise MethodError(f"clips must be floats (B, 3, T, {size}, {size}), got {videos.dtype} {shape}")
        self._check_frames(shape[2])
        return self._tokens(videos.to(self.number_type), generator)

    @torch.no_grad()
    def decode_video(self, tokens: Tokens, frames: int | None = None) -> Tensor:
        """Clips `(B, 3, T, S, S)` clamped to [0, 1], of `frames` frames, all by default.

        Raises MethodError for tokens that are not this tokenizer's, and for frames that patches do not divide.
        """
        codes = check_codes(tokens, self.codebook_sizes, self.max_tokens)
        frames = self.frames if frames is None else frames
        self._check_frames(frames)
        return self.decode_rows(self.bottleneck.regularizer.lookup(codes), frames).clamp(0.0, 1.0)

    def encode_clips(self, videos: Tensor) -> Tensor:
        """The encoder's queries `(B, N, width)` for clips `(B, 3, T, S, S)`."""
        patches = self.x_embedder(videos)
        queries = self.encoder_queries().expand(len(videos), -1, -1)
        out: Tensor = self.encoder(patches + self.encoder_patches(patches.shape[1]), queries)
        return out

    def decode_rows(self, rows: Tensor, frames: int) -> Tensor:
        """Clips `(B, 3, frames, S, S)`, not clamped, of codes' vectors `(B, N, dim)`."""
        latents = self.bottleneck.out_linear(rows.to(self.number_type)) + self.decoder_latents()
        patches = self.decoder_patches(frames // self.patch_frames * self.side**2).expand(len(rows), -1, -1)
        return at_least_float32(self.final_layer(self.decoder(latents, patches)))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """The first frame of what codes `(B, N)` stand for."""
        return self.decode_rows(self.bottleneck.regularizer.lookup(codes), self.frames)[:, :, 0]

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:  # noqa: ARG002
        return self._tokens(images[:, :, None].expand(-1, -1, self.frames, -1, -1), generator)

    def _tokens(self, videos: Tensor, generator: torch.Generator | None) -> Tokens:
        latents = self.bottleneck.in_linear(self.encode_clips(videos))
        if self.stochastic:
            noise = draw_noise(latents[..., 0], need_noise(generator, "encode"))
            codes = self.bottleneck.sample(latents, noise, self.temperature)
        else:
            codes = self.bottleneck.regularizer(latents).codes
        return pack_codes(codes, self.codebook_sizes)

    def _check_frames(self, frames: int) -> None:
        if not 0 < frames <= self.frames or frames % self.patch_frames:
            raise MethodError(f"clips must have a multiple of {self.patch_frames} frames up to {self.frames}: {frames}")


PRIORS: Mapping[str, Mapping[str, int]] = {"gptc-S": {"depth": 12, "width": 384, "heads": 6, "length": 1024}}
"""Named sizes of the prior. The checkpoint tells all but the heads, which are one per 64 channels as in others."""


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Larp` for a release's configuration.

    Raises MethodError where the decoder's patches are not the encoder's: the release lays them out by the latter's
    size, which is no image then.
    """
    for name in ("patch_size", "temporal_patch_size"):
        if config[f"decoder_{name}"] != config[name]:
            raise MethodError(f"decoder_{name} must be {name}, got {config[f'decoder_{name}']} and {config[name]}")
    learned = {
        "encoder_patches": config.get("learned_encoder_patch_pe", False),
        "encoder_queries": config.get("learned_encoder_latent_query_embed", True),
        "decoder_latents": config.get("learned_decoder_latent_pe", False),
        "decoder_patches": config.get("learned_decoder_patch_query_embed", False),
    }
    typed = {
        "encoder_patches": config.get("use_encoder_patch_token_type_embed", False),
        "encoder_queries": config.get("use_encoder_latent_query_token_type_embed", False),
        "decoder_latents": config.get("use_decoder_latent_token_type_embed", False),
        "decoder_patches": config.get("use_decoder_patch_query_token_type_embed", False),
    }
    sides = {
        side: {name: config[f"{side}_{key}"] for name, key in zip(("width", "depth", "heads"), KEYS, strict=True)}
        for side in ("encoder", "decoder")
    }
    return {
        "image_size": config["input_size"],
        "frames": config["frame_num"],
        "tokens": config["bottleneck_token_num"],
        "patch_size": config["patch_size"],
        "patch_frames": config["temporal_patch_size"],
        **sides,
        "codebook_size": config["vq"]["codebook_size"],
        "codebook_dim": config["vq"]["dim"],
        "learned": [part for part in PARTS if learned[part]],
        "typed": [part for part in PARTS if typed[part]],
        "prior": _prior(config["prior"]),
        "temperature": config["vq"].get("temperature", 0.03),
    }


KEYS = ("hidden_size", "depth", "num_heads")


def _prior(given: str | Mapping[str, int] | None) -> Mapping[str, int] | None:
    if given is None or isinstance(given, str):
        return PRIORS[given] if given else None
    names = {"depth": "n_layer", "width": "n_embd", "heads": "n_head", "length": "max_seq_len"}
    return {name: given[key] for name, key in names.items()}


LARGE: Mapping[str, int] = {"width": 768, "depth": 12, "heads": 12}

METHOD = TokenizerMethod(
    id="larp",
    title="LARP",
    idea="Learned queries gather a clip in tokens whose order a small autoregressive prior shapes in training",
    paper=Paper(
        title="LARP: Tokenizing Videos with a Learned Autoregressive Generative Prior",
        authors="Hanyu Wang, Saksham Suri, Yixuan Ren, Hao Chen, Abhinav Shrivastava",
        year=2024,
        url="https://arxiv.org/abs/2410.21264",
    ),
    build=Larp,
    from_release=release_arguments,
    layout=Layout(
        renames=(
            (r"^encoder_patch_pe$", "encoder_patches.table"),
            (r"^encoder_([ht])_embed$", r"encoder_patches.\1"),
            (r"^encode_w_embed$", "encoder_patches.w"),  # sic
            (r"^encoder_patch_token_type_embed$", "encoder_patches.kind"),
            (r"^encoder_latent_query_embed$", "encoder_queries.table"),
            (r"^encoder_latent_query_token_type_embed$", "encoder_queries.kind"),
            (r"^decoder_latent_pe$", "decoder_latents.table"),
            (r"^decoder_latent_token_type_embed$", "decoder_latents.kind"),
            (r"^decoder_patch_query_embed$", "decoder_patches.table"),
            (r"^decoder_([htw])_embed$", r"decoder_patches.\1"),
            (r"^decoder_patch_query_token_type_embed$", "decoder_patches.kind"),
        )
    ),
    variants={
        "l-long": Variant(
            config={
                "image_size": 128,
                "frames": 16,
                "tokens": 1024,
                "patch_size": 8,
                "patch_frames": 4,
                "encoder": LARGE,
                "decoder": LARGE,
                "codebook_size": 8192,
                "codebook_dim": 16,
                "typed": ["decoder_patches"],
                "prior": PRIORS["gptc-S"],
            },
            release=Release("hywang66/LARP-L-long-tokenizer", licence="MIT"),
            note="A tokenizer of clips of 16 frames: an image is encoded as 16 equal frames, which it was not trained "
            "for, and decoded to the first",
        )
    },
)
