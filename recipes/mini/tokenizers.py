"""The trained tokenizers: grids first, then TiTok and One-D-Piece over MaskGIT-VQ's codes and decoder."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.mini.training import Batch, Recipe
from reference_impls.layers.grid_vq import GridVQ
from reference_impls.layers.quantizers import VectorQuantizer
from reference_impls.tokenizers.fsq import METHOD as FSQ
from reference_impls.tokenizers.mar_vae import METHOD as MAR_VAE
from reference_impls.tokenizers.mar_vae import MarVAE
from reference_impls.tokenizers.maskbit import METHOD as MASKBIT
from reference_impls.tokenizers.maskgit_vq import METHOD as MASKGIT_VQ
from reference_impls.tokenizers.maskgit_vq import MaskGitVQ
from reference_impls.tokenizers.one_d_piece import METHOD as ONE_D_PIECE
from reference_impls.tokenizers.titok import METHOD as TITOK
from reference_impls.tokenizers.titok import TiTok
from tokenmark import build
from tokenmark.contracts import Tokenizer, TokenizerMethod
from tokenmark.data.prepared import PreparedData
from tokenmark.measures.pixels import psnr, ssim

REVIVE_EVERY, REVIVE_UNTIL = 20, 0.7
DROPS = 4
"""Parts of a batch that have a length of their own under Tail Token Drop."""
KL_WEIGHT = 1e-5
STAGE_1 = 0.25
"""Share of the training in which TiTok's decoder learns MaskGIT-VQ's codes; after it, it learns pixels."""


def reaches(model: nn.Module, data: PreparedData) -> dict[str, float]:
    """PSNR and SSIM on the held-out digits, and the share of the codebook that they use, if there is one."""
    images, _ = data.batch(0, len(data))
    tokenizer = cast("Tokenizer", model)
    noise = torch.Generator().manual_seed(0) if tokenizer.info.stochastic else None
    tokens = tokenizer.encode(images, None, noise)
    decoded = tokenizer.decode(tokens)
    found = {"psnr": float(psnr(decoded, images).mean()), "ssim": float(ssim(decoded, images).mean())}
    if tokens.codes is not None:
        found["codebook_use"] = len(tokens.codes.unique()) / tokenizer.info.codebook_sizes[0]
    return found


def revive(quantizer: VectorQuantizer, latents: Callable[[], Tensor], codes: Tensor, batch: Batch) -> None:
    """Now and then, move codes that no latent of the batch chose onto latents of the batch."""
    if batch.progress > REVIVE_UNTIL or int(torch.randint(REVIVE_EVERY, (), generator=batch.generator)):
        return
    with torch.no_grad():
        found = latents()
    rows = found.reshape(-1, found.shape[-1])
    unused = torch.bincount(codes.reshape(-1), minlength=quantizer.codebook_size) == 0
    chosen = torch.randint(len(rows), (int(unused.sum()),), generator=batch.generator)
    quantizer.embedding.weight.data[unused] = rows[chosen.to(rows.device)]


def pixel_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean squared error plus a tenth of the mean absolute error."""
    return functional.mse_loss(decoded, images) + 0.1 * functional.l1_loss(decoded, images)


def vq_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Pixels plus the quantizer's terms (VQGAN, equation 4, without perceptual and adversarial terms)."""
    tokenizer = cast("MaskGitVQ", model)
    out = tokenizer.forward_train(batch.images)
    assert out.codes is not None
    revive(tokenizer.quantize, lambda: _grid_latents(tokenizer, batch.images), out.codes, batch)
    return pixel_loss(out.reconstruction, batch.images) + 0.1 * out.quantizer_loss


def grid_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Pixels plus the quantizer's own terms, for quantizers without rows that could fall out of use."""
    out = cast("GridVQ", model).forward_train(batch.images)
    return pixel_loss(out.reconstruction, batch.images) + 0.1 * out.quantizer_loss


def kl_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Pixels plus the divergence of the latents from the standard normal, with a very small weight."""
    out = cast("MarVAE", model).forward_train(batch.images, batch.generator)
    return pixel_loss(out.reconstruction, batch.images) + KL_WEIGHT * out.quantizer_loss


def blank(method: TokenizerMethod, variant: str = "mini") -> Callable[[], nn.Module]:
    """The method's small size with drawn weights."""
    return lambda: cast("nn.Module", method.build(**method.variants[variant].config))


def _grid_latents(tokenizer: MaskGitVQ, images: Tensor) -> Tensor:
    latents: Tensor = tokenizer.encoder(images)
    return latents.flatten(2).transpose(1, 2)


def build_titok(method: TokenizerMethod) -> Callable[[], nn.Module]:
    """A blank TiTok whose pixel decoder is the trained MaskGIT-VQ's."""

    def over_teacher() -> nn.Module:
        model = cast("TiTok", blank(method, "mini-16")())
        model.load_pixel_decoder(teacher())
        return model

    return over_teacher


def teacher() -> MaskGitVQ:
    """The trained MaskGIT-VQ."""
    return cast("MaskGitVQ", build.tokenizer("maskgit-vq", "mini", torch.device("cpu")))


def titok_loss(*, tail_drop: bool) -> Callable[[nn.Module, Batch], Tensor]:
    """TiTok's two stages in one loss; with `tail_drop`, One-D-Piece's uniform number of tokens per part of a batch."""
    proxy = None

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal proxy
        proxy = proxy or teacher().to(batch.images.device)
        titok = cast("TiTok", model)
        quantized = titok.quantize_images(batch.images)
        assert titok.quantize is not None
        revive(
            titok.quantize,
            lambda: titok.encode_latents(batch.images).squeeze(2).transpose(1, 2),
            quantized.codes,
            batch,
        )
        logits = torch.cat([titok.decode_logits(part) for part in _parts(quantized.quantized, batch, tail_drop)])
        if batch.progress < STAGE_1:
            codes = proxy.encode(batch.images).codes
            assert codes is not None
            return functional.cross_entropy(logits.flatten(2), codes) + quantized.loss
        return 20.0 * pixel_loss(titok.decode_pixels(logits), batch.images) + quantized.loss

    return loss


def _parts(latents: Tensor, batch: Batch, tail_drop: bool) -> list[Tensor]:
    """The batch as it is, or in parts that keep a random number of first tokens each, from one to all."""
    if not tail_drop:
        return [latents]
    lengths = torch.randint(1, latents.shape[1] + 1, (DROPS,), generator=batch.generator).tolist()
    return [part[:, :length] for part, length in zip(latents.chunk(DROPS), lengths, strict=True)]


VQ = Recipe(
    name="maskgit-vq-mini",
    package="reference_impls",
    build=blank(MASKGIT_VQ),
    loss=vq_loss,
    epochs=40,
    lr=2e-3,
    weight_decay=0.0,
    reaches=reaches,
    source="VQGAN, arXiv 2012.09841, equation 4; MaskGIT, arXiv 2202.04200, section 3.1",
    differs="no perceptual and no adversarial term; unused codes are moved onto latents during the first 70 %",
)
FSQ_MINI = Recipe(
    name="fsq-mini",
    package="reference_impls",
    build=blank(FSQ),
    loss=grid_loss,
    epochs=40,
    lr=2e-3,
    weight_decay=0.0,
    reaches=reaches,
    source="FSQ, arXiv 2309.15505, section 5.1: MaskGIT's VQGAN with rounding for its bottleneck",
    differs="no perceptual and no adversarial term",
)
MASKBIT_MINI = Recipe(
    name="maskbit-mini",
    package="reference_impls",
    build=blank(MASKBIT),
    loss=grid_loss,
    epochs=40,
    lr=2e-3,
    weight_decay=0.0,
    reaches=reaches,
    source="MaskBit, arXiv 2409.16211, section 3: lookup-free quantization with commitment and entropy terms",
    differs="no perceptual and no adversarial term; the entropies' temperature is 1, for latents that begin near 0",
)
MAR_VAE_MINI = Recipe(
    name="mar-vae-mini",
    package="reference_impls",
    build=blank(MAR_VAE),
    loss=kl_loss,
    epochs=40,
    lr=2e-3,
    weight_decay=0.0,
    reaches=reaches,
    source="latent diffusion, arXiv 2112.10752, section 3.1: a divergence with a very small weight",
    differs="no perceptual and no adversarial term",
)
TITOK_MINI = Recipe(
    name="titok-mini-16",
    package="reference_impls",
    build=build_titok(TITOK),
    loss=titok_loss(tail_drop=False),
    epochs=160,
    lr=2e-3,
    weight_decay=1e-4,
    reaches=reaches,
    needs=("maskgit-vq-mini",),
    source="TiTok, arXiv 2406.07550, section 3.3: stage 1 on MaskGIT-VQ's codes, stage 2 on pixels",
    differs="stage 2 trains the encoder too, without perceptual and adversarial terms; unused codes are revived",
)
ONE_D_PIECE_MINI = Recipe(
    name="one-d-piece-mini-16",
    package="reference_impls",
    build=build_titok(ONE_D_PIECE),
    loss=titok_loss(tail_drop=True),
    epochs=220,
    lr=2e-3,
    weight_decay=1e-4,
    reaches=reaches,
    seed=1,
    needs=("maskgit-vq-mini",),
    source="One-D-Piece, arXiv 2501.10064: Tail Token Drop, uniform over 1..N, in both of TiTok's stages",
    differs="as for titok-mini-16; four lengths per batch instead of one",
)
