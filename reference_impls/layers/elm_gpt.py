"""ELM's networks and samplers (arXiv 2410.16257): LlamaGen's transformer over binary codes that are cut in parts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.code_choice import drawn_code
from reference_impls.layers.llama_gpt import GridGpt
from reference_impls.layers.noise import Noise, drawn_by_race, gumbel
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.remasking import least_sure
from tokenmark.contracts import MethodError

__all__ = ["ElmAr", "ElmMlm", "ElmNetwork", "ElmSettings"]

SCHEDULES = ("constant", "linear", "cos")


@dataclass(frozen=True, slots=True)
class ElmSettings:
    """What a sampling run may choose (`generate_cfg`)."""

    cfg_scale: float = 4.0
    """The s of `uncond + s (cond - uncond)` at the last step; no guidance at 1."""
    cfg_schedule: Literal["constant", "linear", "cos"] = "linear"
    """How it grows from 1. Of the release's six, those that are compared with it here."""
    temperature: float = 1.0
    """Autoregressive: what guided logits are divided by. Masked: scale of the confidence's noise at the first step."""
    top_k: int = 0
    """Autoregressive: how many of the likeliest codes are drawn from; 0 for all."""
    steps: int = 0
    """Masked: forward passes. 0 takes as many as there are tokens, which the autoregressive kind always does."""

    def __post_init__(self) -> None:
        for name in ("cfg_scale", "temperature"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise MethodError(f"{name} must be a number from 0 on, got {getattr(self, name)}")
        if self.cfg_schedule not in SCHEDULES:
            raise MethodError(f"cfg_schedule must be constant, linear or cos, got '{self.cfg_schedule}'")
        if self.top_k < 0:
            raise MethodError(f"top_k must be 0 (all codes) or more, got {self.top_k}")
        if self.steps < 0:
            raise MethodError(f"steps must be 0 (one per token) or more, got {self.steps}")

    def scale(self, step: int, steps: int) -> float:
        """Guidance scale of a step counted from 0: the full one at the last."""
        ratio = (step + 1) / steps
        grown = {"constant": 1.0, "linear": ratio, "cos": math.cos(math.pi / 2 * (1.0 - ratio))}[self.cfg_schedule]
        return 1.0 + (self.cfg_scale - 1.0) * grown


class ElmNetwork(GridGpt):
    """What both kinds share: a token is `token_each` parts of `code_dim` bits, the most significant bit first.

    Args:
        token_each: Parts of a token.
        code_dim: Bits of a part.
        network: As `GridGpt` takes them.
    """

    def __init__(self, *, token_each: int, code_dim: int, **network: Any) -> None:
        super().__init__(**network)
        self.token_each, self.codebook_size = token_each, 2**code_dim

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of every part."""
        return (self.codebook_size,) * self.token_each

    @property
    def written(self) -> tuple[int, tuple[int, ...]]:
        """Tokens of an image, and their codes."""
        return self.length, self.codebook_sizes

    def readable(self, codes: Tensor) -> Tensor:
        """Codes `(B, L, token_each)`, without the last axis where a token has one part."""
        return codes[..., 0] if self.token_each == 1 else codes


class ElmAr(ElmNetwork):
    """One token after the other, all parts of it at once, each by a head of its own."""

    def __init__(self, *, dim: int, **network: Any) -> None:
        super().__init__(dim=dim, **network)
        if self.token_each == 1:
            self.tok_embedder: nn.Module = nn.Embedding(self.codebook_size, dim)
            self.output: nn.Module = nn.Linear(dim, self.codebook_size, bias=False)
        else:
            self.tok_embedder = nn.ModuleList(nn.Embedding(size, dim) for size in self.codebook_sizes)
            self.proj = nn.Linear(self.token_each * dim, dim, bias=False)
            self.output = nn.ModuleList(nn.Linear(dim, size, bias=False) for size in self.codebook_sizes)

    def embedded(self, codes: Tensor) -> Tensor:
        """Codes `(B, n, token_each)` as rows `(B, n, D)`."""
        if not isinstance(self.tok_embedder, nn.ModuleList):
            rows: Tensor = self.tok_embedder(codes[..., 0])
            return rows
        parts = [table(codes[..., part]) for part, table in enumerate(self.tok_embedder)]
        # In the tables' number type, which under autocast a linear map leaves: it is the blocks' stream.
        joined: Tensor = self.proj(torch.cat(parts, dim=-1)).to(parts[0].dtype)
        return joined

    def scores(self, hidden: Tensor) -> Tensor:
        """Logits `(B, n, token_each, K)` of normed rows `(B, n, D)`."""
        heads = self.output if isinstance(self.output, nn.ModuleList) else [self.output]
        return torch.stack([head(hidden) for head in heads], dim=2)

    @torch.no_grad()
    def generate(self, labels: Tensor, settings: ElmSettings, noise: Noise, watch: Watch) -> Tensor:
        """Codes `(B, L, token_each)` for `labels` `(B,)`."""
        if settings.steps not in (0, self.length):
            raise MethodError(f"this generator takes a step per token: steps must be 0 or {self.length}")
        if settings.temperature == 0.0:
            raise MethodError("temperature must be above 0 for an autoregressive generator")

        def choose(logits: Tensor, step: int) -> Tensor:
            uniform = noise.uniform("tokens", step, self.token_each, self.codebook_size)
            return drawn_code(logits, uniform, temperature=settings.temperature, top_k=settings.top_k)

        return self.write(labels, [settings.scale(step, self.length) for step in range(self.length)], choose, watch)


class MlmHead(nn.Module):
    """BERT's head: the scores are products with the token embeddings, plus a bias."""

    def __init__(self, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 1, vocabulary))
        self.fc = nn.Linear(dim, dim)
        self.ln = nn.LayerNorm(dim)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Logits `(B, n, V)` of `(B, n, D)` for embeddings `(V, D)`."""
        return functional.linear(self.ln(functional.gelu(self.fc(x))), table) + self.bias


class ElmMlm(ElmNetwork):
    """Masked tokens, all predicted at once: attention goes both ways, and code K is the mask."""

    causal = False

    def __init__(self, *, dim: int, block_size: int, **network: Any) -> None:
        super().__init__(dim=dim, block_size=block_size, **network)
        if self.token_each != 1:
            raise MethodError(f"masked ELM has tokens of one part, got token_each = {self.token_each}")
        vocabulary = self.codebook_size + 1
        self.tok_embedder = nn.Embedding(vocabulary, dim)
        self.mlm_layer = MlmHead(dim, vocabulary)
        # Both are in the release's class, frozen and without effect: positions are rotary, and the head above writes.
        self.pos_embed = nn.Embedding(block_size, dim).requires_grad_(False)
        self.output = nn.Linear(dim, vocabulary, bias=False).requires_grad_(False)

    def embedded(self, codes: Tensor) -> Tensor:
        """Codes `(B, n, 1)`, K where they are masked, as rows `(B, n, D)`."""
        rows: Tensor = self.tok_embedder(codes[..., 0])
        return rows

    def scores(self, hidden: Tensor) -> Tensor:
        """Logits `(B, n, 1, K)` of normed rows `(B, n, D)`; the mask cannot be drawn."""
        logits: Tensor = self.mlm_layer(hidden, self.tok_embedder.weight)
        return logits[..., None, : self.codebook_size]

    def logits(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Logits `(B, L, 1, K)` at each of `codes` `(B, L, 1)`, the class left out."""
        x = torch.cat([self.classes_embedded(labels), self.embedded(codes)], dim=1)
        return self.scores(self.hidden(x, self.rotation())[:, 1:])

    def steps(self, settings: ElmSettings) -> int:
        """How often the network is called for a batch."""
        return settings.steps or self.length

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        settings: ElmSettings,
        noise: Noise,
        watch: Watch,
        entering: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Codes `(B, L, 1)` for `labels` `(B,)`; `entering` sees the codes that every step starts from."""
        if settings.top_k:
            raise MethodError("a masked generator draws from all codes: top_k must be 0")
        steps = self.steps(settings)
        codes = torch.full((len(labels), self.length, 1), self.codebook_size, device=labels.device)
        for step in range(steps):
            if entering is not None:
                entering(codes)
            ratio = (step + 1) / steps
            probabilities = watch.see(self._guided(codes, labels, settings.scale(step, steps)))[:, :, 0].log_softmax(-1)
            uniform = noise.uniform("tokens", step, self.length, self.codebook_size).to(probabilities)
            drawn = drawn_by_race(probabilities.exp(), uniform)
            masked = codes[..., 0] == self.codebook_size
            found = torch.where(masked, drawn, codes[..., 0])
            if step + 1 < steps:
                doubt = gumbel(noise.uniform("confidence", step, self.length, 1).to(probabilities))[..., 0]
                confidence = probabilities.gather(-1, drawn[..., None])[..., 0]
                confidence = confidence + settings.temperature * (1.0 - ratio) * doubt
                wanted = math.floor(self.length * math.cos(math.pi / 2 * ratio))
                found = found.masked_fill(least_sure(confidence, masked, wanted), self.codebook_size)
            codes = found[..., None]
        return codes

    def _guided(self, codes: Tensor, labels: Tensor, scale: float) -> Tensor:
        if scale == 1.0:
            return at_least_float32(self.logits(codes, labels))
        both = self.logits(codes.repeat(2, 1, 1), torch.cat([labels, torch.full_like(labels, self.classes)]))
        conditional, unconditional = at_least_float32(both).chunk(2)
        return unconditional + scale * (conditional - unconditional)
