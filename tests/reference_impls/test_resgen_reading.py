"""ResGen, as it is read here: what can be known of it without training."""

import math
from dataclasses import replace

import pytest
import torch

from reference_impls.generators.resgen_reading import METHOD, ResgenSettings, build
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.depth_masks import masked_after
from reference_impls.layers.mixture_head import Mixture
from reference_impls.layers.noise import Draws
from tests.reference_impls.latent_generators import seeded, with_drawn_weights
from tests.reference_impls.mar_latents import small_vae, tokens_of
from tests.reference_impls.test_residual_quantizer import digits
from tokenmark.contracts import MethodError

TINY = {
    "grid": 8,
    "channels": 4,
    "levels": 3,
    "codebook_size": 16,
    "classes": 10,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "components": 5,
    "rank": 2,
}
FAST = ResgenSettings(steps=5, cfg_scale=2.5, choice_temperature=2.0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny():
    return with_drawn_weights(build(small_vae(), **TINY))


def test_sizes():
    with torch.device("meta"):
        modules = {name: METHOD.build(None, **variant.config) for name, variant in METHOD.variants.items()}
    assert {name: module.parameters_total for name, module in modules.items()} == {
        "d8": 578_650_976,
        "d16": 578_782_048,
    }
    assert modules["d16"].parameters_total == pytest.approx(576e6, rel=0.01)  # the paper's network, at the same depth
    assert modules["d16"].quantize.codebook_sizes == (1024,) * 16


def test_the_preset_has_the_papers_steps_and_not_its_number():
    preset = METHOD.presets["resgen-reading-d16-63"]
    assert preset.settings.steps == 63
    assert preset.variants == ("d16",)
    assert "no number of this reading" in preset.printed
    assert "1.93" not in preset.printed
    assert METHOD.id == "resgen-reading"


class Seen(Watch):
    """What every step drew."""

    def __init__(self):
        super().__init__()
        self.sums = []

    def see(self, numbers):
        self.sums.append(numbers)
        return super().see(numbers)


def test_every_token_is_unmasked_coarse_to_fine(tiny):
    known = []
    hook = tiny.register_forward_pre_hook(lambda _, inputs: known.append(inputs[0][:2]))
    watch = Seen()
    try:
        codes = tiny.generate(torch.tensor([3, 1]), FAST, Draws(seeded(5, 6), CPU), watch)
    finally:
        hook.remove()
    assert codes.shape == (2, 64, 3)
    assert 0 <= int(codes.min()) <= int(codes.max()) < 16
    assert len(known) == len(watch.sums) == FAST.steps == tiny.steps(FAST)
    rows = tiny.quantize.rows(codes)
    partial = torch.cat([torch.zeros_like(rows[:, :, :1]), rows.cumsum(2)], dim=2).detach()
    before = torch.zeros(2, 64, dtype=torch.int64)
    for sums, left in zip(known, [192, *masked_after(192, 5, "cosine")], strict=False):
        # What a step reads is the sum of some of the final codes, from the coarsest on, and never fewer than before.
        distances = (sums.unsqueeze(2) - partial).norm(dim=-1)
        assert float(distances.amin(2).max()) < 1e-9
        written = distances.argmin(2)
        assert bool((written >= before).all())
        assert written.sum(1).tolist() == [192 - left] * 2
        before = written


def test_certain_sums_come_out_as_they_are():
    """A network that always gives the same sums, without noise, writes their codes."""
    module = build(None, **{**TINY, "channels": 2}).double().eval()
    module.quantize = digits()
    target = torch.randint(16, (2, 64, 3), generator=seeded(7)[0])

    def sure(_, inputs, out):
        rest = module.quantize.lookup(target) - inputs[0][:2]
        still = torch.full_like(rest, -30.0)
        flat = torch.zeros_like(out.factors[:2])
        return Mixture(out.logits[:2], flat, rest, still)

    module.register_forward_hook(sure)
    codes = module.generate(
        torch.tensor([3, 1]), ResgenSettings(steps=7, cfg_scale=1.0), Draws(seeded(5, 6), CPU), Watch()
    )
    assert torch.equal(codes, target)


def test_a_sample_does_not_depend_on_its_batch(tiny):
    together = tokens_of(tiny, [3, 1, 4], (5, 6, 7), FAST)
    alone = torch.cat([tokens_of(tiny, [label], (seed,), FAST) for label, seed in ((3, 5), (1, 6), (4, 7))])
    assert torch.equal(together, alone)
    assert not torch.equal(together, tokens_of(tiny, [3, 1, 4], (8, 9, 10), FAST))
    assert not torch.equal(together, tokens_of(tiny, [2, 2, 2], (5, 6, 7), FAST))


def test_images_are_those_of_the_sums(tiny):
    images = tiny.sample(torch.tensor([3, 1]), seeded(5, 6), FAST)
    latents = tiny.quantize.lookup(tokens_of(tiny, [3, 1], (5, 6), FAST)) / 0.2325
    torch.testing.assert_close(images, tiny.tokenizer.decode_latents(latents).clamp(0, 1))


def test_guidance(tiny):
    assert [FAST.guidance(written) for written in (0.0, 0.5, 1.0)] == [1.0, 1.75, 2.5]
    assert replace(FAST, cfg_schedule="constant").guidance(0.0) == 2.5
    known, labels = torch.randn(2, 64, 4).double(), torch.tensor([3, 1])
    with torch.no_grad():
        one, none = tiny(known, labels), tiny(known, torch.tensor([10, 10]))
        found = tiny._guided(known, labels, FAST, 0.5)
    for part in ("logits", "factors", "shift"):
        expected = getattr(none, part) + 1.75 * (getattr(one, part) - getattr(none, part))
        torch.testing.assert_close(getattr(found, part), expected)
    torch.testing.assert_close(found.log_scale, one.log_scale)
    plain, nearly = (tokens_of(tiny, [3], (5,), replace(FAST, cfg_scale=scale)) for scale in (1.0, 1.0 + 1e-13))
    assert torch.equal(plain, nearly)
    assert not torch.equal(plain, tokens_of(tiny, [3], (5,), FAST))


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "arccos"},
        {"cfg_schedule": "constant"},
        {"temperature": 0.1},
        {"top_p": 0.3},
        {"noise_scale": 0.0},
        {"confidence": "density"},
        {"choice_temperature": 0.0},
    ],
)
def test_every_choice_of_the_reading_matters(tiny, changes):
    assert not torch.equal(tokens_of(tiny, [3], (5,), FAST), tokens_of(tiny, [3], (5,), replace(FAST, **changes)))


def test_the_loss_is_the_bound_at_masked_positions(tiny):
    latents = torch.randn(3, 64, 4, dtype=torch.float64, generator=seeded(4)[0])
    labels = torch.tensor([3, 1, 4])
    with torch.no_grad():
        found = tiny.loss(latents, labels, Draws(seeded(1, 2, 3), CPU), class_dropout=0.0)
        noise, codes, bounds = Draws(seeded(1, 2, 3), CPU), tiny.quantize(latents).codes, []
        ratios, scores = noise.uniform("ratio", 0), noise.uniform("tokens", 0, 192)
        for image in range(3):
            masked = math.ceil(192 * math.cos(math.pi / 2 * float(ratios[image])))
            chosen = scores[image].argsort()[:masked]
            counts = torch.bincount(chosen // 3, minlength=64)
            rows = tiny.quantize.rows(codes[image])
            known = torch.stack([row[: 3 - count].sum(0) for row, count in zip(rows, counts, strict=True)])
            z = torch.stack([row[3 - count :].sum(0) for row, count in zip(rows, counts, strict=True)])
            bound = tiny.head.bound(tiny(known[None], labels[image : image + 1]), z[None])[0]
            bounds.append(bound[counts > 0])
    assert float(found) == pytest.approx(float(torch.cat(bounds).mean()), rel=1e-9)


def test_the_loss_trains_every_weight_but_the_codebooks():
    module = with_drawn_weights(build(None, **TINY))
    latents = torch.randn(2, 64, 4, dtype=torch.float64)
    module.loss(latents, torch.tensor([3, 1]), Draws(seeded(1, 2), CPU)).backward()
    idle = [name for name, weight in module.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == ["quantize.codebooks"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"schedule": "linear"}, "cosine or arccos"),
        ({"cfg_schedule": "cosine"}, "linear or constant"),
        ({"confidence": "none"}, "normalised or density"),
        ({"cfg_scale": 0.5}, "cfg_scale must be 1 or more"),
        ({"noise_scale": -0.1}, "noise_scale must be 0 or more"),
        ({"choice_temperature": math.nan}, "choice_temperature must be 0 or more"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"top_p": 0.0}, "top_p"),
    ],
)
def test_settings_out_of_range(changes, says):
    with pytest.raises(MethodError, match=says):
        ResgenSettings(**changes)


def test_what_does_not_fit(tiny):
    with pytest.raises(MethodError, match="at most the 192 tokens of an image, got 193"):
        tiny.sample(torch.tensor([1]), seeded(1), replace(FAST, steps=193))
    with pytest.raises(MethodError, match="writes 16 latents of 4 channels"):
        build(small_vae(), **{**TINY, "grid": 4})
    with pytest.raises(MethodError, match="multiple of heads"):
        build(None, **{**TINY, "heads": 3})
