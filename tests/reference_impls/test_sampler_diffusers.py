"""The hook in networks of diffusers: a U-Net and PixArt, made small from their configurations."""

import dataclasses

import pytest
import torch

from reference_impls.layers.sampler_hook import STATE, Place, begin, blocks_of
from reference_impls.reducers.importance_merging import PIXART
from tests.reference_impls.test_sampler_hook import FEW, NOTHING, reduced
from tests.reference_impls.test_tomesd import oracle
from tokenmark.contracts import MethodError, UnsupportedBackboneError

diffusers = pytest.importorskip("diffusers")
STEPS = 4


def drawn(network):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.double().eval()


@pytest.fixture(scope="module")
def unet():
    return drawn(
        diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=12,
            attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )
    )


@pytest.fixture(scope="module")
def pixart():
    return drawn(
        diffusers.PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=5,
            cross_attention_dim=16,
            sample_size=16,
            caption_channels=12,
            use_additional_conditions=False,
        )
    )


def run(network, seeds=(5, 6), *, steps=STEPS, return_dict=True):
    """Latents after a few steps of a simple sampler with guidance, `(images, 4, side, side)`."""
    side = network.config.sample_size
    x, text = (torch.stack([draw(seed) for seed in seeds]) for draw in (_latents(side), _text))
    if hasattr(network, STATE):
        begin(network, seeds, steps)
    known = {"encoder_hidden_states": torch.cat([torch.zeros_like(text), text])}
    if type(network).__name__.startswith("PixArt"):
        known["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
    with torch.no_grad():
        for step in range(steps):
            times = torch.full((2 * len(seeds),), 900 - 200 * step)
            out = network(torch.cat([x, x]), timestep=times, **known, return_dict=return_dict)
            untold, told = (out.sample if return_dict else out[0])[:, :4].chunk(2)
            x = x - 0.1 * (untold + 2.0 * (told - untold))
    return x


def _latents(side):
    return lambda seed: torch.randn(4, side, side, generator=torch.Generator().manual_seed(seed)).double()


def _text(seed):
    return torch.randn(3, 12, generator=torch.Generator().manual_seed(100 + seed)).double()


SERVED = [
    (network, name)
    for network in ("unet", "pixart")
    for name in FEW
    if (network, name) != ("unet", "cat-pruning-reading")
]


@pytest.mark.parametrize(("kind", "name"), SERVED)
def test_reduced_alone_and_together_and_the_given_network_as_it_was(kind, name, request):
    network = request.getfixturevalue(kind)
    before = run(network)
    torch.testing.assert_close(run(reduced(name, network, **NOTHING[name])), before, rtol=0, atol=0)
    copied = reduced(name, network, **FEW[name])
    together = run(copied)
    assert not torch.allclose(together, before, rtol=0, atol=1e-6)
    torch.testing.assert_close(together, torch.cat([run(copied, (5,)), run(copied, (6,))]), rtol=0, atol=1e-8)
    torch.testing.assert_close(together, run(copied, return_dict=False), rtol=0, atol=0)
    torch.testing.assert_close(run(network), before, rtol=0, atol=0)
    assert {each.data_ptr() for each in copied.parameters()} == {each.data_ptr() for each in network.parameters()}


@pytest.mark.parametrize(("kind", "name"), SERVED)
def test_as_many_tokens_run_as_is_told(kind, name, request):
    network = request.getfixturevalue(kind)
    copied, counts, told = reduced(name, network, **FEW[name]), [], []
    hook = getattr(copied, STATE).hook
    blocks = blocks_of(copied)
    for block, _ in blocks:
        for module in (block.attn1.to_q, block.attn2.to_q, block.ff):
            inner = module.net[0].proj if module is block.ff else module
            inner.register_forward_hook(lambda module, __, out: counts.append((id(module), out.shape[1])))
    run(copied, steps=STEPS)
    fine = 8
    sides = {8: (8, 8), 16: (4, 4)} if kind == "unet" else {16: (8, 8)}
    for step in range(STEPS):
        for index, (block, _) in enumerate(blocks):
            width = block.attn1.to_q.in_features
            place = Place(index, len(blocks), sides[width], fine // sides[width][0], width)
            seen = hook.seen(place, step, STEPS)
            for part, module in (
                ("attention", block.attn1.to_q),
                ("cross_attention", block.attn2.to_q),
                ("mlp", block.ff.net[0].proj),
            ):
                told.append((id(module), seen.computed if part in hook.parts else place.tokens))
    assert sorted(counts) == sorted(told)
    assert min(count for _, count in told) < 64 if kind == "pixart" else 16 in {count for _, count in told}


def test_a_block_of_the_u_net_under_tomesd_is_plain_loops(unet):
    copied = reduced("tomesd", unet, ratio=0.5, randomized=False)
    block, kept = blocks_of(copied)[0][0], []
    block.register_forward_hook(lambda _, args, kwargs, out: kept.append((args[0], kwargs, out)), with_kwargs=True)
    run(copied, (5,), steps=1)
    x, known, out = kept[0]
    plain = blocks_of(unet)[0][0]
    with torch.no_grad():
        normed = plain.norm1(x)
        for image in range(2):
            choice = torch.zeros(4, 4).numpy()
            groups = oracle(x[image].numpy(), torch.eye(64).double().numpy(), (8, 8), (2, 2), choice, 32)
            distinct, owner = torch.from_numpy(groups).unique(dim=0, return_inverse=True)
            assert len(distinct) == 32
            after = x[image] + plain.attn1((distinct @ normed[image])[None])[0][owner]
            text = known["encoder_hidden_states"][image : image + 1]
            after = after + plain.attn2(plain.norm2(after)[None], encoder_hidden_states=text)[0]
            torch.testing.assert_close(out[image], after + plain.ff(plain.norm3(after)), rtol=0, atol=1e-9)


def test_coarser_maps_are_left_alone_unless_asked_for(unet):
    def widths(**settings):
        copied, seen = reduced("tomesd", unet, **settings), set()
        for block, _ in blocks_of(copied):
            block.attn1.to_q.register_forward_hook(lambda _, __, out: seen.add(out.shape[1]))
        run(copied, (5,), steps=1)
        return seen

    assert widths(ratio=0.5) == {32, 16}  # of 64 half, and 16 as they were
    assert widths(ratio=0.5, max_downsample=2) == {32, 8}


def test_pixart_as_the_authors_merge_it(pixart):
    copied = reduced("importance-merging", pixart, **{**dataclasses.asdict(PIXART), "blocks": (1, 4), "merge_from": 2})
    counts = []
    for block, _ in blocks_of(copied):
        for module in (block.attn1.to_q, block.attn2.to_q):
            module.register_forward_hook(lambda _, __, out: counts.append(out.shape[1]))
    run(copied, (5,), steps=3)
    assert counts == [64, 64, *[32] * 6, 64, 64] * 3


def test_what_cannot_be_reduced(unet):
    with pytest.raises(UnsupportedBackboneError, match="UNet2DConditionModel mixes them outside its blocks"):
        reduced("cat-pruning-reading", unet)
    plain = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(UnsupportedBackboneError, match=r"UNet2DModel has no blocks .* it has .*DownBlock2D"):
        reduced("tomesd", plain)
    with pytest.raises(MethodError, match="call begin"):
        reduced("tomesd", unet)(
            torch.zeros(1, 4, 8, 8).double(), 1, encoder_hidden_states=torch.zeros(1, 3, 12).double()
        )
    copied = reduced("tomesd", unet)
    begin(copied, [1], 1)
    with pytest.raises(UnsupportedBackboneError, match="masks its attention"):
        copied(
            torch.zeros(1, 4, 8, 8).double(),
            1,
            encoder_hidden_states=torch.zeros(1, 3, 12).double(),
            attention_mask=torch.ones(1, 64).double(),
        )
