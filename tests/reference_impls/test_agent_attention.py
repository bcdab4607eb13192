"""Agent attention: what its vectors do not show."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference_impls.classifiers.agent_attention import METHOD, agents_per_block
from reference_impls.layers.agent_attention import AgentAttention
from tokenmark.measures.cost import counted_macs


@pytest.mark.parametrize(
    ("variant", "printed", "parameters"),
    [
        ("agent-deit-tiny", 1.2, 6.0),
        ("agent-deit-small", 4.4, 22.7),
        ("agent-deit-base", 17.6, 87.2),
        ("agent-deit-small-448", 17.7, 23.1),
    ],
)
def test_costs_what_the_paper_prints(variant, printed, parameters):
    """Its counter also counts norms and softmax, a few hundredths."""
    with torch.device("meta"):
        model = METHOD.build(**METHOD.variants[variant].config).eval()
        image = torch.zeros(1, *model.image_shape)
    with sdpa_kernel(SDPBackend.MATH):
        assert counted_macs(model, image) / 1e9 == pytest.approx(printed, abs=0.08)
    assert sum(each.numel() for each in model.parameters()) / 1e6 == pytest.approx(parameters, abs=0.06)


def test_blocks_take_their_stages_numbers():
    assert agents_per_block([9, 16, 25, 4], -1, 12) == [9, 9, 16, 16, 25, 25, 25, 25, 25, 25, 4, 4]
    assert agents_per_block([9, 16, 25, 4], 3, 12) == [9, 9, 16]
    assert agents_per_block([9, 16, 25, 4], 0, 12) == []


def test_without_biases_and_convolution_it_is_two_softmaxes():
    torch.manual_seed(0)
    module = AgentAttention(8, 2, agents=4, grid=4).double()
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith("_bias") or name.startswith("dwc"):
                value.zero_()
    x = torch.randn(1, 17, 8, dtype=torch.float64)
    q, k, v = (each.reshape(17, 2, 4) for each in module.qkv(x)[0].chunk(3, dim=1))
    heads = []
    for head in range(2):
        agents = q[1:, head].reshape(2, 2, 2, 2, 4).mean(dim=(1, 3)).reshape(4, 4)
        found = (agents @ k[:, head].T / 2).softmax(dim=1) @ v[:, head]
        heads.append((q[:, head] @ agents.T / 2).softmax(dim=1) @ found)
    torch.testing.assert_close(module(x)[0], module.proj(torch.cat(heads, dim=1)))
