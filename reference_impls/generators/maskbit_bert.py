"""MaskBit's generator: MaskGIT's parallel decoding of groups of bits, which the network reads as they are."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.class_generator import ClassGenerator, Watch
from reference_impls.layers.maskbit_transformer import BitTransformer, codes_of_groups
from reference_impls.layers.noise import Noise, drawn_by_race, gumbel
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.remasking import least_sure, mask_ratio
from reference_impls.layers.token_checks import pack_codes
from reference_impls.layers.tokenizer_fit import check_reads
from tokenmark.contracts import GeneratorMethod, Layout, MethodError, Paper, Preset, Release, Tokenizer, Variant

__all__ = ["METHOD", "MaskBitBert", "MaskBitSettings", "build", "release_arguments"]


@dataclass(frozen=True, slots=True)
class MaskBitSettings:
    """What a sampling run may choose (`sample`, modeling/modules/sampling.py of markweberdev/maskbit)."""

    steps: int = 64
    """Forward passes; of twice the images where there is guidance."""
    temperature: float = 7.8
    """Scale of the Gumbel noise on the confidence at the start; it falls to 0 at the last step."""
    cfg_scale: float = 7.1
    """The w of `cond + w (cond - uncond)` towards which the last steps go; 0 is none, and half the work."""
    cfg_power: float = 3.0
    """How late it grows; 0 is the whole scale from the first step on."""
    softmax_temperature: float = 1.0
    """What the guided logits are divided by."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"steps must be at least 1, got {self.steps}")
        for name in ("temperature", "cfg_scale", "cfg_power"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise MethodError(f"{name} must be a number from 0 on, got {getattr(self, name)}")
        if not 0.0 < self.softmax_temperature < math.inf:
            raise MethodError(f"softmax_temperature must be a number above 0, got {self.softmax_temperature}")

    def guidance_weight(self, step: int) -> float:
        """The w of a step counted from 0: a power-cosine schedule.

        It is 0 on the first step and never reaches the full scale, because it is evaluated at step / steps; but with
        power 0, 0^0 = 1.
        """
        return self.cfg_scale * (1.0 - math.cos(math.pi * (step / self.steps) ** self.cfg_power)) / 2.0

    def masked_after(self, step: int, count: int) -> int:
        """How many of `count` groups are to be masked after a step counted from 0: the arccos schedule."""
        return math.floor(count * mask_ratio((step + 1) / self.steps))


class MaskBitBert(BitTransformer, ClassGenerator):
    """The sampler around the transformer, which it is: the release stores its keys without a prefix."""

    def __init__(self, *, token_size: int, codebook_splits: int, image_seq_len: int, nclass: int, **sizes: Any) -> None:
        super().__init__(
            token_size=token_size,
            codebook_splits=codebook_splits,
            image_seq_len=image_seq_len,
            nclass=nclass,
            **sizes,
        )
        self.token_size, self.splits, self.image_seq_len = token_size, codebook_splits, image_seq_len
        self.classes = nclass

    def steps(self, settings: MaskBitSettings) -> int:
        """How often the network is called for a batch."""
        return settings.steps

    def draw(self, labels: Tensor, noise: Noise, settings: MaskBitSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1]."""
        tokenizer = self.tokenizer
        groups = self.generate(labels, settings, noise, watch)
        return tokenizer.decode(pack_codes(codes_of_groups(groups, self.token_size), 2**self.token_size))

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        settings: MaskBitSettings,
        noise: Noise,
        watch: Watch,
        entering: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Groups of bits `(B, L, G)` for `labels` `(B,)`; `entering` sees those that every step starts from.

        Noise: uniform `tokens` `(B, L, G, C)` of every step, and `confidence` `(B, L, G)` of every step but the last.
        """
        shape = (self.image_seq_len, self.splits)
        groups = torch.full((len(labels), *shape), self.mask, device=labels.device)
        for step in range(settings.steps):
            if entering is not None:
                entering(groups)
            logits = watch.see(self._guided(groups, labels, settings, step))
            likelihoods = (logits / settings.softmax_temperature).log_softmax(-1)
            masked = groups == self.mask
            uniform = noise.uniform("tokens", step, *shape, self.mask).to(likelihoods)
            drawn = torch.where(masked, drawn_by_race(likelihoods.exp(), uniform), groups)
            if step + 1 == settings.steps:
                return drawn
            confidence = likelihoods.gather(-1, drawn[..., None]).squeeze(-1)
            temperature = settings.temperature * (1.0 - (step + 1) / settings.steps)
            confidence = confidence + temperature * gumbel(noise.uniform("confidence", step, *shape).to(confidence))
            wanted = settings.masked_after(step, math.prod(shape))
            again = least_sure(confidence.flatten(1), masked.flatten(1), wanted).view_as(masked)
            groups = drawn.masked_fill(again, self.mask)
        return groups

    def _guided(self, groups: Tensor, labels: Tensor, settings: MaskBitSettings, step: int) -> Tensor:
        """Logits `(B, L, G, C)`; both halves on the first step too, whose weight is 0: every call has one shape."""
        if settings.cfg_scale == 0.0:
            return at_least_float32(self(groups, labels))
        dropped = torch.full_like(labels, self.classes)
        both = at_least_float32(self(torch.cat([groups, groups]), torch.cat([labels, dropped])))
        conditional, unconditional = both.chunk(2)
        return conditional + settings.guidance_weight(step) * (conditional - unconditional)


def build(
    tokenizer: Tokenizer | None,
    *,
    token_size: int,
    codebook_splits: int,
    image_seq_len: int,
    nclass: int,
    hidden_dim: int,
    depth: int,
    heads: int,
    mlp_dim: int,
) -> MaskBitBert:
    """A generator that writes for `tokenizer`; sizes are `BitTransformer`'s.

    Without one it gives groups of bits, but no images. Raises MethodError if the tokenizer does not read the codes
    that these sizes write, if groups do not divide the bits, or if heads do not divide the width.
    """
    if token_size % codebook_splits:
        raise MethodError(f"token_size must be a multiple of codebook_splits, got {token_size}")
    if hidden_dim % heads:
        raise MethodError(f"hidden_dim must be a multiple of heads, got {hidden_dim}")
    generator = MaskBitBert(
        token_size=token_size,
        codebook_splits=codebook_splits,
        image_seq_len=image_seq_len,
        nclass=nclass,
        hidden_dim=hidden_dim,
        depth=depth,
        heads=heads,
        mlp_dim=mlp_dim,
    )
    if tokenizer is not None:
        check_reads(tokenizer, image_seq_len, (2**token_size,))
        generator.bind(tokenizer)
    return generator


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for a release's configuration tree.

    Raises MethodError for what no released generator is: codes that are looked up, and norms in front.
    """
    network, tokens = config["model"]["mlm_model"], config["model"]["vq_model"]
    if network["model_cls"] != "lfq_bert":
        raise MethodError(f"model_cls must be lfq_bert, got '{network['model_cls']}'")
    if network["use_prenorm"]:
        raise MethodError("use_prenorm must be false: the released generators have their norms behind the sums")
    side = config["dataset"]["preprocessing"]["resolution"] // 2 ** (tokens["num_resolutions"] - 1)
    return {
        "token_size": tokens["token_size"],
        "image_seq_len": side**2,
        "nclass": 1000,  # no configuration says otherwise
        **{name: network[name] for name in ("codebook_splits", "hidden_dim", "depth", "heads", "mlp_dim")},
    }


def _size(bits: int, note: str = "") -> Variant:
    config = {
        "token_size": bits,
        "codebook_splits": 2,
        "image_seq_len": 256,
        "nclass": 1000,
        "hidden_dim": 1024,
        "depth": 24,
        "heads": 16,
        "mlp_dim": 4096,
    }
    # The file is called so by the command of the release's readme.
    release = Release(f"markweber/maskbit_generator_{bits}bit", f"maskbit_generator_{bits}bit.bin")
    return Variant(config=config, tokenizer=f"maskbit/{bits}bit", release=release, note=note)


def _row(bits: int, gfid: str, settings: MaskBitSettings) -> Preset:
    """A row of the release's table, with the settings of its configuration, as its evaluation script draws it.

    The classes stand in one random order, again and again, and no seed is set. By the authors' word settings were
    tuned, and each number is of a single run.
    """
    return Preset(
        settings=settings,
        variants=(f"{bits}bit",),
        classes="cycled",
        world_size=1,
        batch_size=100,
        printed=f"README.md of markweberdev/maskbit: gFID {gfid}",
    )


METHOD = GeneratorMethod(
    id="maskbit-bert",
    title="MaskBit generator",
    idea="MaskGIT without embedding tables: a token's bits are the input, and groups of them are masked and predicted",
    paper=Paper(
        title="MaskBit: Embedding-free Image Generation via Bit Tokens",
        authors="Mark Weber, Lijun Yu, Qihang Yu, Xueqing Deng, Xiaohui Shen, Daniel Cremers, Liang-Chieh Chen",
        year=2024,
        url="https://arxiv.org/abs/2409.16211",
    ),
    settings=MaskBitSettings,
    build=build,
    layout=Layout(
        ignored=("bits_to_indices",),  # powers of 2
        renames=((r"^token_emb\.", "input_proj."),),  # the release's script reads both names
    ),
    variants={
        "10bit": _size(10),
        "12bit": _size(12),
        "14bit": _size(14),
        "16bit": _size(16),
        "18bit": _size(18, "one of the tokenizer's 18 bits never changes, by its authors' word"),
    },
    presets={
        "maskbit-10bit-paper": _row(10, "1.68", MaskBitSettings(temperature=10.5, cfg_scale=6.4, cfg_power=2.5)),
        "maskbit-12bit-paper": _row(12, "1.65", MaskBitSettings(temperature=8.2, cfg_scale=7.1, cfg_power=3.0)),
        "maskbit-14bit-paper": _row(14, "1.62", MaskBitSettings(temperature=7.8, cfg_scale=7.1, cfg_power=3.0)),
        "maskbit-14bit-paper-128-steps": _row(
            14, "1.56", MaskBitSettings(steps=128, temperature=9.0, cfg_scale=7.1, cfg_power=3.0)
        ),
        "maskbit-14bit-paper-256-steps": _row(
            14, "1.52", MaskBitSettings(steps=256, temperature=10.3, cfg_scale=5.8, cfg_power=3.0)
        ),
        "maskbit-16bit-paper": _row(16, "1.64", MaskBitSettings(temperature=7.5, cfg_scale=6.5, cfg_power=2.5)),
        "maskbit-18bit-paper": _row(18, "1.67", MaskBitSettings(temperature=8.5, cfg_scale=5.7, cfg_power=2.5)),
    },
)
