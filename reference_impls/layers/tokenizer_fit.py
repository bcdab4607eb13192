"""Whether a tokenizer reads what a generator writes."""

from collections.abc import Sequence

from reference_impls.layers.token_checks import LATENT_BITS
from tokenmark.contracts import MethodError, Tokenizer

__all__ = ["check_reads", "check_reads_latents"]


def check_reads(tokenizer: Tokenizer, count: int, codebook_sizes: Sequence[int]) -> None:
    """Raise MethodError unless `tokenizer` takes `count` tokens of codebooks of these sizes."""
    info, sizes = tokenizer.info, tuple(codebook_sizes)
    if info.codebook_sizes != sizes or info.max_tokens != count:
        codes = sizes[0] if len(sizes) == 1 else sizes
        raise MethodError(
            f"this generator writes {count} tokens of {codes} codes, the tokenizer reads "
            f"{info.max_tokens} of {info.codebook_sizes}"
        )


def check_reads_latents(tokenizer: Tokenizer, count: int, channels: int) -> None:
    """Raise MethodError unless `tokenizer` decodes `count` latents of so many channels, and draws nothing for it."""
    info = tokenizer.info
    fits = not info.codebook_sizes and (info.max_tokens, info.bits_per_token) == (count, LATENT_BITS * channels)
    if not fits or info.draws_to_decode:
        reads = f"latents of {info.bits_per_token / LATENT_BITS:g} channels"
        if info.codebook_sizes:
            reads = f"codes of {info.codebook_sizes}"
        drawn = ", and draws to decode them" if info.draws_to_decode else ""
        raise MethodError(
            f"this generator writes {count} latents of {channels} channels, the tokenizer reads "
            f"{info.max_tokens} {reads}{drawn}"
        )
