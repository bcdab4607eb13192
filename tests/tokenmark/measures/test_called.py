"""MACs of calls on shapes alone; those of every sampler are compared in `test_every_generator`."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tokenmark.errors import MethodError
from tokenmark.measures.called import called_macs
from tokenmark.measures.cost import counted_macs


class Remembers(nn.Module):
    """Grows with every call, of which no argument's shape tells."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def forward(self, x):
        self.rows.append(x)
        return torch.cat(self.rows) @ x.T


def test_a_module_that_remembers_is_called_each_time():
    network, x = Remembers(), torch.empty(1, 7, device="meta")
    assert called_macs(lambda: [network(x) for _ in range(4)], network) == 7 * (1 + 2 + 3 + 4)


class Cached(nn.Module):
    """Writes into an argument."""

    def forward(self, x, cache):
        cache["rows"] = torch.cat([cache["rows"], x]) if "rows" in cache else x
        return cache["rows"] @ x.T


def test_a_cache_that_is_an_argument_counts_as_it_grows():
    network, x, cache = Cached(), torch.empty(1, 7, device="meta"), {}
    assert called_macs(lambda: [network(x, cache) for _ in range(4)], network) == 7 * (1 + 2 + 3 + 4)


def test_a_module_in_whose_call_something_was_put_is_called_each_time():
    network, x = nn.Sequential(nn.Linear(3, 5, device="meta")), torch.empty(1, 3, device="meta")
    shares = iter([1, 2])
    network[0].register_forward_hook(lambda _module, _args, out: out.repeat(next(shares), 1) @ out.T)
    assert called_macs(lambda: [network(x), network(x)], network) == 2 * 15 + 5 + 10


def test_what_multiplies_unseen_is_refused():
    x = torch.empty(2, 2, device="meta")
    with pytest.raises(MethodError, match="einsum is not counted"):
        called_macs(lambda: torch.einsum("ij,jk->ik", x, x), nn.Identity())


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_both_ways(groups):
    x, one = torch.rand(2, 4, 5, 5), torch.rand(6, 4 // groups, 3, 3)
    other = torch.rand(4, 6 // groups, 3, 3)

    def both(_=None):
        functional.conv_transpose2d(x, other, groups=groups, stride=2)
        return functional.conv2d(x, weight=one, groups=groups)

    assert called_macs(both, nn.Identity()) == counted_macs(both, x)
