"""docs/tokenizers.md: all tokenizers in one table, from the registry and the vectors that the tests run."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from tokenmark import registry
from tokenmark.contracts import TokenizerInfo, TokenizerMethod, Variant

VECTORS = "tests/vectors"
HEAD = """# Tokenizers

Every image tokenizer that Tokenmark implements. `nox -s docs` writes this page from the methods themselves; the tests
hold it to them. `tokenmark tokenize IMAGE --method M` shows what one keeps of a picture of yours, `tokenmark weights M`
where its weights are, `tokenmark list` the papers.

*Tokens* and *bits* are of one image, over the sizes of a method (a continuous channel counts 32 bits). *Weights* is the
licence of the repository or hub page that publishes them, as far as it is known; look at it yourself before you use
them. *Parity*: how many recorded runs of the official release (in float64, every output to 1e-6) and how many official
checkpoints' key lists the implementation agrees with, all of them run by the tests ([parity](parity.md)). No released
weights were loaded here.

Every tokenizer is held to this by the tests, at a small size: in float32 an image has the same codes whatever its batch
(99.9 % of them; continuous latents to 1e-3), noise comes from the generator that is given and does not depend on the
batch, and under bfloat16 autocast the same tokens decode to within 0.05 (root mean square, pixels in [0, 1]), and
latents stay within a tenth of their length (not asked of CAT and GaussianToken: half precision may choose another
length or another code there). SEED-2 gives no pixels to compare.

![A handwritten three, and what 1, 2, 4, 8 and 16 tokens of One-D-Piece's small size make of it
](pictures/three.one-d-piece-mini-16.png)

`tokenmark tokenize docs/pictures/three.png --method one-d-piece` made this: a 32 x 32 image through the small size that
is trained in this repository.
"""
OWN = "in the repository"


@dataclass(frozen=True, slots=True)
class Size:
    """A variant, and what its code looks like."""

    name: str
    variant: Variant
    info: TokenizerInfo

    @property
    def bits(self) -> float | None:
        """The most bits of an image; None where a code has no bound."""
        return None if self.info.max_tokens is None else self.info.max_tokens * self.info.bits_per_token


def page(root: Path) -> str:
    """The whole page."""
    methods = [(method, _sizes(method)) for method in _tokenizers()]
    lines = [HEAD, "", *table(("method", "year", "idea", "tokens", "bits", "parameters", "weights", "parity"))]
    for method, sizes in methods:
        link = f"[{method.title}]({method.paper.url}) `{method.id}`"
        lines.append(
            row((link, str(method.paper.year), method.idea, *_spans(sizes), _licence(method), _parity(method, root)))
        )
    lines += ["", "## Sizes", ""]
    lines += table(("variant", "image", "tokens", "codebook", "bits/px", "parameters", "code", "weights"))
    for method, sizes in methods:
        lines += [row(_size(method, size)) for size in sizes]
    return "\n".join(lines) + FOOT


FOOT = """

*Code*: `shorter` can be asked for fewer tokens, `noise` draws some when it encodes, `noise to decode` when it decodes,
`text` must be told what the image shows. Notes on single sizes: `tokenmark weights METHOD`.
"""


def _tokenizers() -> list[TokenizerMethod]:
    """All built-in ones, learned ones by year, then the plain codecs."""
    found = [registry.get(name) for name, place in registry.locations().items() if place.package == "reference_impls"]
    tokenizers = [method for method in found if isinstance(method, TokenizerMethod)]
    return sorted(tokenizers, key=lambda method: (_plain(method), method.paper.year, method.id))


def _plain(method: TokenizerMethod) -> bool:
    return all("quality" in variant.config for variant in method.variants.values())


def _sizes(method: TokenizerMethod) -> list[Size]:
    with torch.device("meta"):
        return [Size(name, variant, method.build(**variant.config).info) for name, variant in method.variants.items()]


def _spans(sizes: list[Size]) -> tuple[str, str, str]:
    """Tokens, bits and parameters over the sizes that are no small ones of ours."""
    shown = [size for size in sizes if size.variant.weights is None] or sizes
    if any(size.info.max_tokens is None for size in shown):
        return "bytes", "8 each", "none"
    counts = [size.info.max_tokens or 0 for size in shown]
    shorter = any(size.info.variable_length for size in shown)
    bits = span([round(size.bits or 0) for size in shown])
    millions = span([round(size.info.parameters / 1e6) for size in shown])
    return (f"up to {max(counts):,}" if shorter else span(counts)), bits, f"{millions} M"


def span(numbers: list[int]) -> str:
    """The least and the most of some numbers, or the one that there is."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _licence(method: TokenizerMethod) -> str:
    return "no weights" if _plain(method) else licence(method.variants.values())


def licence(variants: Collection[Variant]) -> str:
    """The licences of published weights, or why there are none."""
    releases = [variant.release for variant in variants if variant.release is not None]
    known = sorted({release.licence for release in releases if release.licence})
    if known:
        return ", ".join(known)
    if releases:
        return "not known"
    return "none released" if all(map(_none, variants)) else "not on the hub"


def _none(variant: Variant) -> bool:
    return variant.weights is not None or "no release" in variant.note or "no weights" in variant.note


def _parity(method: TokenizerMethod, root: Path) -> str:
    return "Pillow's own" if _plain(method) else parity(root, f"{method.id}__")


def parity(root: Path, *begin: str) -> str:
    """How many recorded runs of a release, and how many checkpoints' key lists, have names that begin so."""
    found = [path.name for path in (root / VECTORS).glob("*.json") if path.name.startswith(begin)]
    manifests = sum(name.endswith(".manifest.json") for name in found)
    if not found:
        return "no release: built from the paper"
    return f"{_count(len(found) - manifests, 'run')}, {_count(manifests, 'checkpoint')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _size(method: TokenizerMethod, size: Size) -> tuple[str, ...]:
    info = size.info
    books = sorted(set(info.codebook_sizes))
    each = f" x {len(info.codebook_sizes)}" if len(info.codebook_sizes) > 1 else ""
    rate = "" if size.bits is None else f"{size.bits / info.image_size**2:.3g}"
    ways = {
        "shorter": info.variable_length,
        "noise": info.stochastic,
        "noise to decode": info.draws_to_decode,
        "text": info.text is not None,
    }
    return (
        f"`{method.id}/{size.name}`",
        str(info.image_size),
        "bytes" if info.max_tokens is None else f"{info.max_tokens:,}",
        (f"{books[0]:,}{each}" if books else _latent(info)),
        rate,
        f"{info.parameters / 1e6:,.1f} M" if info.parameters else "none",
        ", ".join(way for way, so in ways.items() if so),
        place(size.variant),
    )


def _latent(info: TokenizerInfo) -> str:
    whole, rest = divmod(info.bits_per_token, 32)
    return f"{whole:.0f} channels" if not rest else f"{info.bits_per_token:.0f} bits"


def place(variant: Variant) -> str:
    """Where a variant's weights are published; nothing where they are not on a hub."""
    if variant.weights is not None:
        return OWN
    return f"`{variant.release.key}`" if variant.release is not None else ""


def table(heads: tuple[str, ...]) -> Iterator[str]:
    """The first two lines of a Markdown table."""
    yield row(heads)
    yield row(("---",) * len(heads))


def row(cells: tuple[str, ...]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
