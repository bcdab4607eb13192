"""`tokenmark fid`: the libraries' own numbers on the same files, from the same seeded weights."""

import json

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image

from tests.long import takes_long
from tests.tokenmark.extractors.conftest import pictures
from tokenmark import networks, protocols
from tokenmark.cli.main import status_of
from tokenmark.files import sha256_of
from tokenmark.measures.moments import Gaussian

SIDE, N = 64, 5


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of PNG files and the same images as arrays."""
    root = tmp_path_factory.mktemp("sets")
    images = pictures(SIDE, 2 * N).permute(0, 2, 3, 1).numpy()
    for name, part in (("a", images[:N]), ("b", np.roll(images[N:], 3, axis=1))):
        (root / name).mkdir()
        for at, image in enumerate(part):
            Image.fromarray(image).save(root / name / f"{at}.png")
        np.savez(root / f"{name}.npz", part)
    return root


@pytest.fixture
def fid(inception_file, capsys):
    """The rows that the command gives, by protocol."""

    def call(*arguments, status=0):
        weights = ("--weights", str(inception_file), "--weights-sha256", sha256_of(inception_file))
        ended = status_of(["fid", *map(str, arguments), *weights, "--device", "cpu", "--json"])
        out, err = capsys.readouterr()
        assert ended == status, err
        if status:
            return err
        return {row["protocol"]: {v["name"]: v["value"] for v in row["values"]} for row in json.loads(out)}

    return call


@pytest.fixture(scope="module")
def theirs(folders, inception_file):
    """What torch-fidelity says of the two folders."""
    options = {"feature_extractor_weights_path": str(inception_file), "cuda": False, "verbose": False, "cache": False}
    paths = {"input1": str(folders / "a"), "input2": str(folders / "b")}
    return torch_fidelity.calculate_metrics(**paths, fid=True, isc=True, isc_splits=1, save_cpu_ram=True, **options)


@takes_long
def test_torch_fidelity_s_own_number(fid, folders, theirs):
    found = fid(folders / "a", folders / "b")["torch-fidelity"]
    # fewer samples than features: torch-fidelity's eigenvalues are noise beyond this
    assert found["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert found["fid"] > 1.0
    # in one split, as no order changes it
    found = fid(folders / "a", folders / "b", "--protocol", "titok-val50k")["titok-val50k"]
    assert found["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-4)


@takes_long
def test_protocols_side_by_side_move_the_distance(fid, folders):
    """The same images are elsewhere under each: the resize and the port move them."""
    names = ("clean-fid", "pytorch-fid", "torchmetrics-1.8", "torch-fidelity")
    found = fid(folders / "a", folders / "b.npz", *(part for name in names for part in ("--protocol", name)))
    assert list(found) == list(names)
    distances = [values["fid"] for values in found.values()]
    assert min(abs(one / other - 1) for one in distances for other in distances if one is not other) > 1e-4


@takes_long
def test_the_form_of_a_set_does_not_matter(fid, folders):
    assert fid(folders / "a", folders / "b") == fid(folders / "a.npz", folders / "b.npz")


def test_statistics_in_the_reference_s_place(fid, folders, tmp_path):
    """A file with mu and sigma of the same images gives the distance of the images themselves."""
    network = networks.load(protocols.get("mini"), torch.device("cpu"))
    images = torch.from_numpy(np.load(folders / "b.npz")["arr_0"]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = Gaussian.of(network(images).features.numpy())
    path = tmp_path / "VIRTUAL.npz"
    np.savez(path, mu=found.mean, sigma=found.covariance)
    given, computed = (fid(folders / "a", place, "--protocol", "mini")["mini"] for place in (path, folders / "b"))
    assert given["fid"] == pytest.approx(computed["fid"], rel=1e-6)
    message = fid(path, folders / "b", status=2)
    assert "holds no images, only statistics" in message
    message = fid(folders / "a", path, "--protocol", "torch-fidelity", status=2)
    assert "has statistics of 64 features, this network gives 2048" in message


def test_mistakes_are_one_line(fid, folders, tmp_path):
    for arguments, words in (
        ((folders / "a", tmp_path / "none"), "there is nothing at"),
        ((folders / "a", folders / "b", "--protocol", "torch-fid"), "or torch-fidelity"),
        ((tmp_path, folders / "b"), "holds no images"),
    ):
        message = fid(*arguments, status=2)
        assert words in message
        assert message.count("\n") == 1


def test_missing_and_wrong_weights(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOKENMARK_WEIGHTS", str(tmp_path))
    assert status_of(["fid", str(folders / "a"), str(folders / "b"), "--device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert "weights-inception-2015-12-05-6726825d.pth is missing" in message
    assert str(tmp_path) in message
    (tmp_path / "weights-inception-2015-12-05-6726825d.pth").write_bytes(b"other")
    assert status_of(["fid", str(folders / "a"), str(folders / "b"), "--device", "cpu"]) == 2
    assert "is another file or truncated" in capsys.readouterr().err


@takes_long
def test_the_table_says_what_cannot_be_compared(folders, inception_file, capsys):
    weights = ("--weights", str(inception_file), "--weights-sha256", sha256_of(inception_file))
    arguments = ["fid", str(folders / "a"), str(folders / "b"), "--protocol", "titok-val50k", *weights]
    assert status_of([*arguments, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if not line.startswith(("note", str(folders)))) <= 100
    assert "not the published file" in out
    assert "the protocol's is 50,000" in out


def test_a_protocol_that_compares_no_images(fid, folders):
    message = fid(folders / "a", folders / "b", "--protocol", "top1-crop875", status=2)
    assert "protocol top1-crop875 has no feature network, so it compares no images" in message
