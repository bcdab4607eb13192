"""What holds for every generator: its contract, one clear line for bad input, and images that stand alone."""

import dataclasses
import math
import types
import typing
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.reference_impls.small_generators import SMALL, built, method_of, prompts_of, settings_of, tokenizer_of
from tokenmark import registry
from tokenmark.contracts import GeneratorMethod, MethodError, Preset, TokenizerMethod, Tokens
from tokenmark.measures.called import called_macs
from tokenmark.measures.cost import counted_macs

METHODS = {
    name: registry.get_as(GeneratorMethod, name)
    for name in registry.locations()
    if isinstance(registry.get(name), GeneratorMethod)
}
KNOWN = [name for name in SMALL if name.partition("/")[0] in METHODS]


@pytest.fixture(scope="module", params=KNOWN)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(name):
    return tokenizer_of(name)


@pytest.fixture(scope="module")
def generator(name, tokenizer):
    return built(name, tokenizer).requires_grad_(requires_grad=False)  # torch's counter of MACs may not meet a gradient


@pytest.fixture(scope="module")
def settings(name):
    return settings_of(name)


@dataclasses.dataclass
class Drawn:
    """Images, what the tokenizer was handed for them, and how often the network ran."""

    images: torch.Tensor
    content: torch.Tensor
    calls: int


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def sample(name, generator, labels, seeds, settings, texts=None):
    """Images of `labels`; the text of an image, where one is told, is that of its seed or of `texts`."""
    prompts = prompts_of(name, seeds if texts is None else texts)
    return generator.sample(torch.tensor(labels, dtype=torch.int64), seeded(*seeds), settings, prompts)


def drawn(name, generator, labels, seeds, settings, texts=None):
    """As `sample`, watched."""
    handed, calls, tokenizer = [], [], generator.tokenizer
    hook = counted(name, generator).register_forward_hook(lambda *_: calls.append(1))
    with pytest.MonkeyPatch.context() as patch, hook:
        decode = tokenizer.decode
        patch.setattr(tokenizer, "decode", lambda tokens, *more: handed.append(tokens) or decode(tokens, *more))
        images = sample(name, generator, labels, seeds, settings, texts)
    [tokens] = handed
    assert isinstance(tokens, Tokens)
    return Drawn(images, tokens.codes if tokens.codes is not None else tokens.latents, len(calls))


def rows(module):
    """Blocks that stand in a row of their like; of rows within rows the outermost."""
    found = [row for row in module.modules() if isinstance(row, nn.ModuleList) and len(row)]
    inner = {id(part) for row in found for block in row for part in block.modules()}
    return [row for row in found if id(row) not in inner]


def counted(name, module):
    """What runs once whenever the network does."""
    return module.get_submodule(SMALL[name].counted) if SMALL[name].counted else rows(module)[-1][-1]


LABELS, SEEDS = [3, 1, 4], [5, 6, 7]


@pytest.fixture(scope="module")
def together(name, generator, settings):
    return drawn(name, generator, LABELS, SEEDS, settings)


def one_line(error):
    assert "\n" not in str(error.value)
    assert 10 < len(str(error.value)) < 300


@pytest.mark.parametrize("method", METHODS)
def test_has_a_small_size_that_these_tests_run(method):
    """So that nobody registers a generator which none of these promises is tested of."""
    assert method in SMALL, f"give the generator '{method}' an entry in tests/reference_impls/small_generators.py"


def test_small_sizes_are_of_registered_generators():
    assert [name for name in SMALL if name not in KNOWN] == []


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_names_papers_and_tokenizers(method):
    assert method.id == method.build.__module__.rsplit(".", 1)[-1].replace("_", "-")
    assert method.paper.url.startswith("https://")
    assert "\n" not in method.idea
    assert len(method.idea) <= 120
    assert method.variants
    for variant in method.variants.values():
        assert variant.tokenizer or variant.note
        if variant.tokenizer:
            tokenizer, _, size = variant.tokenizer.partition("/")
            assert size in registry.get_as(TokenizerMethod, tokenizer).variants


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_presets_say_what_they_are_for(method):
    for name, preset in method.presets.items():
        assert isinstance(preset, Preset), name
        assert isinstance(preset.settings, method.settings), name
        assert preset.variants, name
        assert set(preset.variants) <= set(method.variants), name
        assert preset.printed or not name.endswith("-paper"), f"{name}: say where its number is printed"


def test_preset_names_are_one_methods_only():
    names = Counter(name for method in METHODS.values() for name in method.presets)
    assert [name for name, methods in names.items() if methods > 1] == []


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_settings_that_no_method_takes(method):
    """NaN and infinity for numbers, far too little for counts, other words than those that there are."""
    kinds, refused = typing.get_type_hints(method.settings), []
    for setting in dataclasses.fields(method.settings):
        kind = kinds[setting.name]
        if kind is bool:
            continue
        if isinstance(kind, types.UnionType):
            kind = next(part for part in typing.get_args(kind) if part is not type(None))
        values = {float: (math.nan, math.inf, -math.inf), int: (-7,)}.get(kind, ("no such word",))
        if kind is int and "steps" in setting.name and setting.default > 0:
            values = (*values, 0)
        for value in values:
            with pytest.raises(MethodError, match=setting.name.replace("_", "|")) as caught:
                method.settings(**{setting.name: value})
            one_line(caught)
            refused.append(value)
    assert refused
    for bad in (bad for name, small in SMALL.items() if method_of(name) is method for bad in small.bad):
        with pytest.raises(MethodError, match="|".join(bad).replace("_", "|")) as caught:
            method.settings(**bad)
        one_line(caught)


def test_images_are_of_the_tokenizers_size_and_between_0_and_1(together, tokenizer):
    side = tokenizer.info.image_size
    assert together.images.shape == (3, 3, side, side)
    assert together.images.dtype == torch.float32
    assert 0.0 <= together.images.min() < together.images.max() <= 1.0


@pytest.mark.parametrize("places", [[1], [2, 0]], ids=["alone", "in another order"])
def test_an_image_is_the_same_in_every_batch(name, generator, settings, together, places):
    other = drawn(name, generator, [LABELS[i] for i in places], [SEEDS[i] for i in places], settings)
    near = 1e-5
    if together.content.dtype == torch.int64:
        near = 1e-4  # the same codes: what is left is how the tokenizer's decoder rounds
        assert torch.equal(other.content, together.content[places])
    torch.testing.assert_close(other.images, together.images[places], rtol=0, atol=near)


def test_seeds_and_what_is_asked_for_matter(name, generator, settings, together):
    """The first image with another seed, and with the same seed another class or text."""
    other = drawn(name, generator, [3, 1], [6, 5], settings, texts=[5, 6])
    first = together.content[0]
    for content, image in zip(other.content, other.images, strict=True):
        assert not torch.equal(image, together.images[0])
        if first.dtype == torch.int64:
            assert (content != first).double().mean() > 0.1
        else:
            assert (content - first).std() > 1e-3 * first.std()


def test_steps_are_the_calls_of_the_network(name, generator, settings, together):
    assert generator.steps(settings) == together.calls
    for preset in METHODS[name.partition("/")[0]].presets.values():
        assert generator.steps(preset.settings) >= 1


def test_no_labels_give_no_images(name, generator, tokenizer, settings):
    side = tokenizer.info.image_size
    assert sample(name, generator, [], [], settings).shape == (0, 3, side, side)


def test_labels_and_seeds_that_do_not_fit(name, generator, settings):
    prompts = prompts_of(name, [1])
    bad = [
        (torch.tensor([1.0]), "int64"),
        (torch.tensor([1], dtype=torch.int32), "int64"),
        (torch.tensor([[1]]), r"\(B,\)"),
        (torch.tensor(1), r"\(B,\)"),
        (torch.tensor([1, 2]), "one generator per label: got 1 for 2"),
        (torch.tensor([], dtype=torch.int64), "one generator per label: got 1 for 0"),
    ]
    if prompts is None:
        bad += [(torch.tensor([label]), f"0 to {generator.classes - 1}") for label in (-1, generator.classes)]
    for labels, words in bad:
        with pytest.raises(MethodError, match=words) as caught:
            generator.sample(labels, seeded(1), settings, prompts)
        one_line(caught)


def test_texts_that_are_missing_or_of_another_size(name, generator, settings):
    if SMALL[name].prompts is None:
        pytest.skip("it is told nothing in words")
    good = prompts_of(name, [1])
    bad = [None, prompts_of(name, [1, 2])]
    for part in (field.name for field in dataclasses.fields(good)):
        given = getattr(good, part)
        bad.append(dataclasses.replace(good, **{part: torch.cat([given, given], dim=-1)}))
    for prompts in bad:
        with pytest.raises(MethodError) as caught:
            generator.sample(torch.tensor([1]), seeded(1), settings, prompts)
        one_line(caught)


class Other:
    """A tokenizer of another code."""

    def __init__(self, info, **changes):
        self.info = dataclasses.replace(info, **changes)


def test_tokenizers_that_do_not_fit(name, tokenizer):
    info = tokenizer.info
    more = [{"max_tokens": 2 * info.max_tokens}, {"max_tokens": info.max_tokens - 1}]
    if info.codebook_sizes:
        sizes, bits = tuple(2 * size for size in info.codebook_sizes), info.bits_per_token
        more.append({"codebook_sizes": sizes, "bits_per_token": bits + len(sizes)})
        more.append({"codebook_sizes": (*info.codebook_sizes, 2), "bits_per_token": bits + 1})
        more.append({"codebook_sizes": (), "bits_per_token": 128.0})
    else:
        more.append({"bits_per_token": 2 * info.bits_per_token})
        more.append({"codebook_sizes": (64,), "bits_per_token": 6.0})
    if info.text is not None:
        more.append({"text": (info.text[0], info.text[1] + 1)})
    for changes in more:
        with pytest.raises(MethodError, match="tokenizer") as caught:
            built(name, Other(info, **changes))
        one_line(caught)


def test_without_a_tokenizer_there_are_no_images(name, settings):
    with pytest.raises(MethodError, match="without a tokenizer") as caught:
        sample(name, built(name, None), [1], [1], settings)
    one_line(caught)


def test_the_tokenizer_is_not_part_of_it(name, generator, tokenizer):
    bare = built(name, None)
    assert list(bare.state_dict()) == list(generator.state_dict())
    assert bare.parameters_total == generator.parameters_total == sum(weight.numel() for weight in bare.parameters())
    if isinstance(tokenizer, nn.Module):
        assert not set(map(id, tokenizer.modules())) & set(map(id, generator.modules()))


def test_a_broken_weight_is_reported_with_its_step(name, tokenizer, settings):
    """In the last block, and behind what could hide it: the last of its weights."""
    broken = built(name, tokenizer)
    with torch.no_grad():
        list(counted(name, broken).parameters())[-1].view(-1)[0] = torch.nan
    with pytest.raises(MethodError, match=r"step \d+ of") as caught:
        sample(name, broken, [1, 2], [1, 2], settings)
    one_line(caught)


def test_without_content_it_gives_an_image_without_content_at_the_same_cost(name, generator, tokenizer, settings):
    """On the meta device, where nothing can be looked at; its cost is what torch's own counter finds on numbers."""
    images = []

    def draw(module):
        images.append(sample(name, module, [0], [0], settings))

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        counted = counted_macs(lambda _: draw(generator), torch.zeros(1))
    with torch.device("meta"):
        bare = built(name, tokenizer_of(name)).requires_grad_(requires_grad=False)
    assert called_macs(lambda: draw(bare), bare) == counted > 0
    side = tokenizer.info.image_size
    assert [image.is_meta for image in images] == [False, True]
    assert [image.shape for image in images] == [(1, 3, side, side)] * 2


def test_runs_under_autocast(name, generator, settings):
    with torch.autocast("cpu", torch.bfloat16):
        found = drawn(name, generator, [0, 4], [1, 2], settings)
    assert found.images.dtype == torch.float32
    assert torch.isfinite(found.images).all()
    assert found.content.dtype in (torch.int64, torch.float32)


def test_runs_wholly_in_double(name, generator, tokenizer, settings):
    for module in (generator, tokenizer):
        module.double()
    try:
        found = drawn(name, generator, [0, 4], [1, 2], settings)
    finally:
        for module in (generator, tokenizer):
            module.float()
    assert found.images.dtype == torch.float64
    assert found.content.dtype in (torch.int64, torch.float64)


def test_blocks_are_compiled_as_they_are_called(name, monkeypatch):
    """Every block that stands in a row, and no other module; what is compiled here is nothing."""
    module, compiled = built(name, None), []

    def noted(block):
        compiled.append(block)

    monkeypatch.setattr(nn.Module, "compile", noted)
    blocks = {id(block) for row in rows(module) for block in row if len(row) > 1}
    assert module.compile_blocks() == len(compiled) > 0
    assert blocks & {id(block) for block in compiled}


def test_compiled_blocks_give_the_same_images(monkeypatch):
    """By tracing alone, without a compiler of machine code."""
    name, compile_block = "dit", nn.Module.compile
    settings, tokenizer = settings_of(name), tokenizer_of(name)
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_block(self, backend="eager"))
    plain, compiled = built(name, tokenizer), built(name, tokenizer)
    assert compiled.compile_blocks() == 2
    expected = sample(name, plain, [1, 2], [1, 2], settings)
    torch.testing.assert_close(sample(name, compiled, [1, 2], [1, 2], settings), expected, rtol=0, atol=1e-5)
