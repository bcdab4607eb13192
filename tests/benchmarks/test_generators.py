"""The benchmark of the generators, at sizes that take no time: the rival does without, and draws the same."""

from itertools import pairwise

import pytest
import torch
from click.testing import CliRunner

from benchmarks import generators
from reference_impls.layers import selective_scan
from tests.reference_impls.small_generators import SMALL, built

SHORTCUTS = {shortcut.method: shortcut for shortcut in generators.SHORTCUTS}
LABELS = torch.tensor([1, 3])


def contenders(name):
    module = built(name, None).double() if name in ("dit", "lamamba-diff") else built(name, None)
    return module, SHORTCUTS[name].contenders(module, 1, 2)


@pytest.mark.parametrize("name", SHORTCUTS)
def test_both_draw_the_same(name):
    _, (ours, without) = contenders(name)
    torch.testing.assert_close(without(LABELS).double(), ours(LABELS).double(), rtol=1e-4, atol=1e-6)


def rows_of(module, sampler):
    """How many rows the first linear layer of the last block sees at every call of it, images and places together."""
    seen, layer = [], [part for part in module.modules() if isinstance(part, torch.nn.Linear)][-2]
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][..., 0].numel()))
    sampler(LABELS)
    hook.remove()
    return seen


@pytest.mark.parametrize("name", ["rar", "llamagen-gpt"])
def test_without_kept_keys_every_step_has_all_places(name):
    module, (ours, without) = contenders(name)
    kept, again = rows_of(module, ours), rows_of(module, without)
    assert len(kept) == len(again) == 16
    assert set(kept[1:]) == {4}  # two images, with their class and without
    assert [after - before for before, after in pairwise(again)] == [4] * 15


@pytest.mark.parametrize("name", ["titok-maskgit", "dit"])
def test_in_two_calls_each_has_half_of_the_rows(name):
    module, (ours, without) = contenders(name)
    together, apart = rows_of(module, ours), rows_of(module, without)
    assert len(apart) == 2 * len(together)
    assert {2 * rows for rows in apart} == set(together)
    assert rows_of(module, ours) == together  # the module is as it was


def test_the_scan_goes_place_by_place_and_back(monkeypatch):
    _, (ours, without) = contenders("lamamba-diff")
    chunks, scan = [], selective_scan.linear_recurrence
    monkeypatch.setattr(selective_scan, "linear_recurrence", lambda *given: chunks.append(1) or scan(*given))
    without(LABELS)
    assert not chunks
    ours(LABELS)
    assert chunks


def test_it_runs_and_writes_the_page(tmp_path, monkeypatch):
    sizes = {name: size._replace(tiny=SMALL[name].config) for name, size in generators.SIZES.items()}
    monkeypatch.setattr(generators, "SIZES", sizes)
    page = tmp_path / "measured.md"
    arguments = ["--methods", "rar,dit", "--rounds", "2", "--steps", "2", "--device", "cpu", "--output", str(page)]
    done = CliRunner().invoke(generators.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "rar, keys kept, beside computing all again" in page.read_text()
    assert "dit, one call for both, beside two calls" in page.read_text()
    assert "lamamba" not in done.output


def test_a_method_that_is_not_timed():
    done = CliRunner().invoke(generators.main, ["--methods", "rar,var"])
    assert done.exit_code == 2
    assert "no shortcut of 'var' is timed: choose among rar, llamagen-gpt" in done.output
