"""Super token attention against plain loops, on maps that its cells tile and on others; its sizes."""

import numpy as np
import pytest
import torch
from torch import nn

from reference_impls.classifiers import stvit
from reference_impls.layers.super_tokens import SuperTokenAttention

SMALL = {
    "embed_dim": (8, 8, 8, 8),
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 1, 2),
    "stoken_size": (4, 2, 1, 1),
    "n_iter": (2, 1, 1, 1),
    "layerscale": (False, True, False, True),
    "projection": 16,
    "num_classes": 5,
}


def oracle(x, cell, iterations, refine):
    """The attention of one map `(C, H, W)`, super token by super token."""
    channels, height, width = x.shape
    rows, columns = -(-height // cell), -(-width // cell)
    padded = np.zeros((channels, rows * cell, columns * cell))
    padded[:, :height, :width] = x
    tokens = padded.reshape(channels, rows, cell, columns, cell).mean(axis=(2, 4))
    pixels = [(i, j) for i in range(rows * cell) for j in range(columns * cell)]
    around = [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]

    def read(tokens, row, column):
        inside = 0 <= row < rows and 0 <= column < columns
        return tokens[:, row, column] if inside else np.zeros(channels)

    for _ in range(iterations):
        shares, summed, mass = {}, np.zeros_like(tokens), np.zeros((rows, columns))
        for i, j in pixels:
            logits = [read(tokens, i // cell + di, j // cell + dj) @ padded[:, i, j] for di, dj in around]
            weights = np.exp(np.array(logits) * channels**-0.5)
            shares[i, j] = weights / weights.sum()
            for share, (di, dj) in zip(shares[i, j], around, strict=True):
                row, column = i // cell + di, j // cell + dj
                if 0 <= row < rows and 0 <= column < columns:
                    summed[:, row, column] += share * padded[:, i, j]
                    mass[row, column] += share
        tokens = summed / (mass + 1e-12)
    tokens = refine(tokens)
    out = np.zeros_like(padded)
    for i, j in pixels:
        for share, (di, dj) in zip(shares[i, j], around, strict=True):
            out[:, i, j] += share * read(tokens, i // cell + di, j // cell + dj)
    return out[:, :height, :width]


@pytest.mark.parametrize(("size", "cell", "iterations"), [((6, 4), 2, 1), ((5, 7), 3, 2), ((3, 4), 4, 3)])
def test_attention_equals_plain_loops(size, cell, iterations):
    torch.manual_seed(0)
    attention = SuperTokenAttention(4, cell, iterations, 2, qkv_bias=True).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64) * 3

    def refine(tokens):
        return attention.stoken_refine(torch.from_numpy(tokens)[None])[0].numpy()

    with torch.no_grad():
        got = attention(x)
        for image in range(2):
            np.testing.assert_allclose(got[image], oracle(x[image].numpy(), cell, iterations, refine), atol=1e-12)


def test_gradients_flow_through_the_shares():
    torch.manual_seed(0)
    attention = SuperTokenAttention(2, 2, 2, 1, qkv_bias=True).double()
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attention, (x,))


def test_takes_sizes_that_cells_do_not_tile():
    model = stvit.METHOD.build(**SMALL, img_size=(33, 47)).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 33, 47)).shape == (1, 5)


@pytest.mark.parametrize(("name", "millions"), [("stvit-small", 25.5), ("stvit-base", 51.7), ("stvit-large", 95.0)])
def test_released_sizes(name, millions):
    with torch.device("meta"):
        model: nn.Module = stvit.METHOD.build(**stvit.METHOD.variants[name].config)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
