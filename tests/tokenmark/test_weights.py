"""Weights: one clear error for every way in which a file can be wrong."""

import pickle
import tomllib

import pytest
import safetensors.torch
import torch
from torch import nn

from tokenmark import registry, weights
from tokenmark.errors import WeightsError
from tokenmark.files import sha256_of


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


@pytest.fixture
def folder(package, model):
    """The weights folder of a made package, with the model's weights and their card in it."""
    place = package({"made_pkg/__init__.py": "", "made_pkg/weights/.keep": ""}) / "made_pkg" / "weights"
    safetensors.torch.save_file(model.state_dict(), place / "good.safetensors")
    (place / "good.toml").write_text(f'sha256 = "{sha256_of(place / "good.safetensors")}"\nseed = 7\n')
    return place


def test_found_with_its_card(folder):
    found = weights.bundled("made_pkg", "good")
    assert (found.name, found.path, found.card["seed"]) == ("good", folder / "good.safetensors", 7)
    assert found.sha256 == sha256_of(found.path)


def test_fills_every_parameter_and_buffer(folder, model):
    other = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    weights.load_strict(other, folder / "good.safetensors")
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


@pytest.mark.parametrize("suffix", ["safetensors", "toml"])
def test_missing(folder, suffix):
    (folder / f"good.{suffix}").unlink()
    with pytest.raises(WeightsError, match=rf"good\.{suffix} is missing: run `nox -s train-mini`"):
        weights.bundled("made_pkg", "good")


def flip(data):
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize("harm", [flip, lambda data: data[:-1], lambda data: data + b"\0", lambda _data: b""])
def test_altered_or_truncated(folder, harm):
    path = folder / "good.safetensors"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(WeightsError, match="was altered or is truncated") as error:
        weights.bundled("made_pkg", "good")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("card", ["sha256 = ", "seed = 7\n", b"\xff\xfe", 'sha256 = "0000"\n'])
def test_a_broken_card(folder, card):
    (folder / "good.toml").write_bytes(card if isinstance(card, bytes) else card.encode())
    with pytest.raises(WeightsError, match=r"good\.(toml cannot be read|safetensors was altered)"):
        weights.bundled("made_pkg", "good")


def save(folder, tensors):
    safetensors.torch.save_file(tensors, folder / "wrong.safetensors")
    return folder / "wrong.safetensors"


def test_wrong_keys_are_listed(folder, model):
    state = model.state_dict()
    state["2.weight"] = state.pop("0.weight")
    with pytest.raises(WeightsError) as error:
        weights.load_strict(model, save(folder, state))
    assert str(error.value).endswith("does not fit this model: 1 missing (0.weight); 1 unexpected (2.weight)")


def test_wrong_shapes_are_listed_and_nothing_is_loaded(folder, model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    state["0.weight"], state["1.bias"] = torch.zeros(3, 5), torch.zeros(1)
    with pytest.raises(WeightsError) as error:
        weights.load_strict(model, save(folder, state))
    assert "2 mis-shaped (0.weight (3, 5) for (3, 4), 1.bias (1,) for (3,))" in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_many_wrong_keys_are_counted(folder):
    with pytest.raises(WeightsError, match=r"8 missing \(.*and 3 more\)"):
        weights.load_strict(nn.ModuleDict({name: nn.Linear(1, 1) for name in "abcd"}), save(folder, {}))


@pytest.mark.parametrize(
    "data",
    [b"", b"not weights", b"\xff" * 64, pickle.dumps({"0.weight": 1}), (1 << 40).to_bytes(8, "little") + b"{}"],
)
def test_not_safetensors(folder, model, data):
    path = folder / "wrong.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="cannot be read as tensors alone"):
        weights.load_strict(model, path)


def test_a_torch_file_is_not_opened(folder, model):
    torch.save(model.state_dict(), folder / "wrong.safetensors")
    with pytest.raises(WeightsError, match="cannot be read as tensors alone"):
        weights.load_strict(model, folder / "wrong.safetensors")
    with pytest.raises(WeightsError, match="cannot be read as tensors alone"):
        weights.load_strict(model, folder / "absent.safetensors")


@pytest.mark.parametrize("package_name", ["tokenmark", "reference_impls"])
def test_every_bundled_file_is_its_cards(package_name):
    """Each pair that is there; which ones a suite needs is checked where the suite is planned."""
    folder = registry.package_folder(package_name) / "weights"
    cards = {path.stem for path in folder.glob("*.toml")}
    assert cards
    assert cards == {path.stem for path in folder.glob("*.safetensors")}
    for name in cards:
        found = weights.bundled(package_name, name)
        card = tomllib.loads((folder / f"{name}.toml").read_text())
        assert card["name"] == name
        held = safetensors.torch.load_file(found.path)
        assert all(value.isfinite().all() for value in held.values())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_reads_what_was_written(tmp_path, suffix):
    state = {"a": torch.rand(3), "b": torch.arange(2)}
    path = tmp_path / f"net.{suffix}"
    (torch.save if suffix == "pth" else safetensors.torch.save_file)(state, path)
    got = weights.read(path)
    assert got.keys() == state.keys()
    assert all(torch.equal(got[key], state[key]) for key in state)


class Harm:
    def __reduce__(self):
        return print, ("executed",)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"a": Harm()}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="cannot be read as tensors alone") as error:
        weights.read(tmp_path / "net.pth")
    assert "\n" not in str(error.value)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("data", [b"", b"no weights", pickle.dumps(3), b"PK\x03\x04 no archive"])
def test_no_weights_file(tmp_path, suffix, data):
    path = tmp_path / f"net.{suffix}"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"cannot be read as tensors alone|does not hold named tensors"):
        weights.read(path)


@pytest.mark.parametrize("held", [[torch.zeros(1)], {"a": 1.0}, torch.zeros(2)])
def test_something_else_than_named_tensors(tmp_path, held):
    torch.save(held, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="does not hold named tensors"):
        weights.read(tmp_path / "net.pth")
