"""Swin's pieces against timm's, and their windows."""

import pytest
import torch
from timm.models.swin_transformer import PatchMerging as TimmMerging
from timm.models.swin_transformer import SwinTransformerBlock

from reference_impls.layers.swin import PatchMerging, SwinBlock, from_windows, to_windows


@pytest.mark.parametrize(("grid", "shifted"), [((8, 12), False), ((8, 12), True), ((4, 4), True), ((12, 8), True)])
def test_block_equals_timms(grid, shifted):
    torch.manual_seed(0)
    block = SwinBlock(8, 2, grid, window=4, shifted=shifted).double()
    theirs = SwinTransformerBlock(8, grid, 2, window_size=4, shift_size=2 if shifted else 0).double().eval()
    names = theirs.state_dict()
    missing, unexpected = theirs.load_state_dict({k: v for k, v in block.state_dict().items() if k in names})
    assert not missing
    assert not unexpected
    x = torch.randn(2, *grid, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block(x), theirs(x))
        assert block(x[:0]).shape == (0, *grid, 8)


def test_merging_equals_timms():
    torch.manual_seed(0)
    merging, theirs = PatchMerging(4).double(), TimmMerging(4).double()
    theirs.load_state_dict(merging.state_dict())
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(merging(x), theirs(x))


def test_windows_go_back_to_their_places():
    x = torch.arange(2 * 6 * 8 * 3).reshape(2, 6, 8, 3)
    windows = to_windows(x, (3, 4))
    assert windows.shape == (2, 4, 12, 3)
    assert torch.equal(windows[:, 1], x[:, :3, 4:].flatten(1, 2))
    assert torch.equal(from_windows(windows, (3, 4), (6, 8)), x)
