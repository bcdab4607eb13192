"""The generators: MaskGIT over the trained TiTok's codes, LlamaGen over MaskGIT-VQ's, DiT in MAR-VAE's latents."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from recipes.mini.training import Batch, Recipe
from recipes.mini.views import Views
from reference_impls.generators.dit import METHOD as DIT
from reference_impls.generators.dit import DiT
from reference_impls.generators.llamagen_gpt import METHOD as LLAMAGEN
from reference_impls.generators.llamagen_gpt import LlamaGenGpt
from reference_impls.generators.titok_maskgit import METHOD
from reference_impls.layers.diffusion import linear_betas
from reference_impls.layers.latent_diffusion import TRAINING_STEPS
from reference_impls.layers.training_losses import CLASS_DROPOUT, NoiseLoss, next_code_loss, some_dropped
from reference_impls.tokenizers.mar_vae import MarVAE
from tokenmark import build
from tokenmark.contracts import Tokenizer
from tokenmark.data.prepared import PreparedData

VIEWS = 10
"""Views of an image that are encoded."""
NOISES = 8
"""How often a held-out image is noised."""


def tokenizer() -> Tokenizer:
    """The trained TiTok that the generator writes for."""
    return build.tokenizer("titok", "mini-16", torch.device("cpu"))


def masked_loss() -> Callable[[nn.Module, Batch], Tensor]:
    """Masked-token cross-entropy with classes dropped now and then (MaskGIT, section 3.2)."""
    found: Tokenizer | None = None

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal found
        found = found or cast("Tokenizer", cast("nn.Module", tokenizer()).to(batch.images.device))
        codes = found.encode(batch.images).codes
        return cast("Tensor", cast("Any", model).loss(codes, batch.labels, batch.generator))

    return loss


def held_out_loss(model: nn.Module, data: PreparedData) -> dict[str, float]:
    """The same loss on the held-out digits, with fixed masks."""
    images, labels = data.batch(0, len(data))
    codes = tokenizer().encode(images).codes
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        losses = [float(cast("Any", model).loss(codes, labels, generator)) for _ in range(8)]
    return {"masked_cross_entropy": sum(losses) / len(losses)}


MASKGIT = Recipe(
    name="titok-maskgit-mini-16",
    package="reference_impls",
    build=lambda: cast("nn.Module", METHOD.build(tokenizer(), **METHOD.variants["mini-16"].config)),
    loss=masked_loss(),
    epochs=250,
    lr=2e-3,
    reaches=held_out_loss,
    needs=("titok-mini-16",),
    source="MaskGIT, arXiv 2202.04200, section 3.2, and TiTok, arXiv 2406.07550: arccos masks, 10 % dropped classes",
    differs="codes are made from augmented digits on the fly",
)


def _ready(method: str, variant: str, device: torch.device) -> Any:
    """A trained tokenizer, laid out as its convolutions are fastest."""
    module = cast("nn.Module", build.tokenizer(method, variant, device))
    return module.to(memory_format=torch.channels_last)


def llamagen_loss() -> Callable[[nn.Module, Batch], Tensor]:
    """Cross-entropy of the next code with classes dropped now and then (LlamaGen, section 2.2)."""
    views: Views | None = None

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal views
        if views is None:
            reader: Tokenizer = _ready("maskgit-vq", "mini", batch.images.device)
            views = Views(lambda images: cast("Tensor", reader.encode(images).codes), VIEWS)
        gpt = cast("LlamaGenGpt", model)
        labels = some_dropped(batch.labels, gpt.classes, CLASS_DROPOUT, batch.generator)
        return next_code_loss(gpt.logits, views.of(batch), labels)

    return loss


def held_out_cross_entropy(model: nn.Module, data: PreparedData) -> dict[str, float]:
    """The same loss on the held-out digits, with their classes."""
    images, labels = data.batch(0, len(data))
    codes = _ready("maskgit-vq", "mini", torch.device("cpu")).encode(images).codes
    with torch.inference_mode():
        return {"cross_entropy": float(next_code_loss(cast("LlamaGenGpt", model).logits, codes, labels))}


def noise_loss(model: DiT, moments: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """DiT's loss of latents drawn from their `moments` `(B, 2, C, S, S)`, means and deviations; a scalar.

    Steps, noise and latents are drawn anew every time.
    """
    of = NoiseLoss(linear_betas(TRAINING_STEPS))
    mean, deviation = moments.unbind(1)
    drawn, noise = (torch.randn(mean.shape, generator=generator).to(mean) for _ in range(2))
    times = torch.randint(of.steps, (len(mean),), generator=generator).to(mean.device)
    clean = (mean + deviation * drawn) * model.latent_scale
    return of(lambda x, steps: model(x, steps, labels), clean, times, noise).mean()


def moments_of(reader: MarVAE, images: Tensor) -> Tensor:
    """Means and deviations of the latents of images, `(B, 2, C, S, S)`."""
    posterior = reader.posterior(images)
    return torch.stack([posterior.mean, posterior.std], dim=1)


def dit_loss() -> Callable[[nn.Module, Batch], Tensor]:
    """DiT's loss with classes dropped now and then (DiT, sections 3.1 and 4)."""
    views: Views | None = None

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal views
        if views is None:
            reader = cast("MarVAE", _ready("mar-vae", "mini", batch.images.device))
            views = Views(lambda images: moments_of(reader, images), VIEWS)
        dit = cast("DiT", model)
        labels = some_dropped(batch.labels, dit.classes, CLASS_DROPOUT, batch.generator)
        return noise_loss(dit, views.of(batch), labels, batch.generator)

    return loss


def held_out_noise_loss(model: nn.Module, data: PreparedData) -> dict[str, float]:
    """The same loss on the held-out digits, with their classes and fixed noise."""
    images, labels = data.batch(0, len(data))
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        moments = moments_of(cast("MarVAE", _ready("mar-vae", "mini", torch.device("cpu"))), images)
        losses = [float(noise_loss(cast("DiT", model), moments, labels, generator)) for _ in range(NOISES)]
    return {"noise_loss": sum(losses) / NOISES}


LLAMAGEN_MINI = Recipe(
    name="llamagen-gpt-mini",
    package="reference_impls",
    build=lambda: cast("nn.Module", LLAMAGEN.build(None, **LLAMAGEN.variants["mini"].config)),
    loss=llamagen_loss(),
    epochs=90,
    lr=3e-3,
    augment=False,
    reaches=held_out_cross_entropy,
    needs=("maskgit-vq-mini",),
    source="LlamaGen, arXiv 2406.06525, section 2.2: the next code's cross-entropy, 10 % dropped classes",
    differs="codes of 10 small affine changes of each digit in place of ten crops; no dropout but that of classes",
)

DIT_MINI = Recipe(
    name="dit-mini",
    package="reference_impls",
    build=lambda: cast("nn.Module", DIT.build(None, **DIT.variants["mini"].config)),
    loss=dit_loss(),
    epochs=200,
    lr=2e-3,
    weight_decay=0.0,
    augment=False,
    reaches=held_out_noise_loss,
    needs=("mar-vae-mini",),
    source="DiT, arXiv 2212.09748, sections 3.1 and 4: noise and, by the variational bound, its variance; 10 % dropped"
    " classes",
    differs="latents of 10 small affine changes of each digit, not of mirrored images; the learning rate decays",
)
