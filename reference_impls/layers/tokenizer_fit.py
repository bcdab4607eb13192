"""Whether a tokenizer reads what a generator writes."""

from collections.abc import Sequence

from tokenmark.contracts import MethodError, Tokenizer

__all__ = ["check_reads"]


def check_reads(tokenizer: Tokenizer, count: int, codebook_sizes: Sequence[int]) -> None:
    """Raise MethodError unless `tokenizer` takes `count` tokens of codebooks of these sizes."""
    info, sizes = tokenizer.info, tuple(codebook_sizes)
    if info.codebook_sizes != sizes or info.max_tokens != count:
        codes = sizes[0] if len(sizes) == 1 else sizes
        raise MethodError(
            f"this generator writes {count} tokens of {codes} codes, the tokenizer reads "
            f"{info.max_tokens} of {info.codebook_sizes}"
        )
