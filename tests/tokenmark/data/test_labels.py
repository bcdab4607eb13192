"""Labels of the validation images, from every file that people have; all forms say the same."""

import tarfile

import pytest

from tests.tokenmark.data.made_imagenet import label_of, pack_devkit, write_devkit
from tokenmark.data import labels
from tokenmark.data.imagenet import validation_name, wnids
from tokenmark.errors import DataError

EXPECTED = {validation_name(number): label_of(number) for number in range(1, 50_001)}


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    """`ILSVRC2012_devkit_t12/data`. Only to be read."""
    return write_devkit(tmp_path_factory.mktemp("kit") / labels.DEVKIT / "data")


def lines(row):
    return "".join(f"{row(number, wnids()[label_of(number)])}\n" for number in range(1, 50_001))


def kaggle(number, wnid):
    return f"ILSVRC2012_val_{number:08d},{wnid} 1 2 30 40 {wnid} 5 6 70 80 "


TEXTS = {
    "wnid per line": lambda: lines(lambda _, wnid: wnid),
    "kaggle": lambda: "ImageId,PredictionString\n" + lines(kaggle),
    "name and index": lambda: lines(lambda number, _: f"{validation_name(number)} {label_of(number)}"),
    "name and wnid": lambda: lines(lambda number, wnid: f"{validation_name(number)}\t{wnid}"),
    "windows lines": lambda: lines(lambda _, wnid: f"{wnid}\r"),
}


@pytest.mark.parametrize("form", sorted(TEXTS))
def test_texts(tmp_path, form):
    path = tmp_path / "labels"
    path.write_text(TEXTS[form](), newline="")
    assert labels.read(path) == EXPECTED


def test_the_devkit_in_all_its_forms(devkit, tmp_path):
    archive = pack_devkit(devkit, tmp_path / "devkit.tar.gz")
    for path in (devkit, devkit.parent, devkit / labels.GROUND_TRUTH, archive):
        assert labels.read(path) == EXPECTED


def test_ids_alone_are_no_labels(devkit, tmp_path):
    """Taken for class indices they would be wrong for nearly every image."""
    path = tmp_path / labels.GROUND_TRUTH
    path.write_bytes((devkit / labels.GROUND_TRUTH).read_bytes())
    with pytest.raises(DataError, match=r"are ILSVRC2012_IDs, not class indices: put the devkit's meta.mat beside it"):
        labels.read(path)


def spoiled(devkit, tmp_path, truth=None, meta=None):
    folder = tmp_path / "spoiled"
    folder.mkdir()
    for name, change in ((labels.GROUND_TRUTH, truth), (labels.META, meta)):
        content = (devkit / name).read_bytes()
        (folder / name).write_bytes(change(content) if change else content)
    return folder


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ({"truth": lambda text: text[: len(text) // 2]}, "and 50,000 in 1,000 with 50 in each are needed"),
        ({"truth": lambda text: text + b"1\n"}, "do not fit each other|50,001"),
        ({"truth": lambda text: b"1001\n" + text.split(b"\n", 1)[1]}, "1001 is no ILSVRC2012_ID"),
        ({"truth": lambda text: b"tench\n" + text.split(b"\n", 1)[1]}, "do not fit each other"),
        ({"truth": lambda text: text.split(b"\n", 1)[1] + b"5\n"}, "with 50 in each"),
        ({"truth": lambda _: b"\xff\xfe\x00"}, "labels cannot be read"),
        ({"meta": lambda data: data[:2000]}, "meta.mat is damaged"),
        ({"meta": lambda _: b""}, "meta.mat is damaged"),
        ({"meta": lambda _: b"no matrix" * 50}, "meta.mat is damaged"),
    ],
)
def test_a_damaged_devkit(devkit, tmp_path, harm, words):
    with pytest.raises(DataError, match=words):
        labels.read(spoiled(devkit, tmp_path, **harm))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty: --labels takes the devkit"),
        ("\n \n", "is empty"),
        ("n01440764\n" * 49_999, "labels 49,999 images in 1 classes"),
        ("n01440764\nn99999999\n", "line 2 of .* is 'n99999999'"),
        ("a.JPEG n01440764\n", "line 1 of .* is 'a.JPEG n01440764'"),
        (f"{validation_name(1)} 1000\n", "line 1 of"),
        (f"{validation_name(1)} -1\n", "line 1 of"),
        (f"{validation_name(1)} 3\n", "labels 1 images"),
    ],
)
def test_texts_that_are_no_labels(tmp_path, text, words):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        labels.read(path)


def test_an_archive_that_is_no_devkit(devkit, tmp_path):
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
        archive.add(devkit / labels.META, "meta.mat")
    with pytest.raises(DataError, match="it is not the devkit"):
        labels.read(tmp_path / "other.tar.gz")
    whole = pack_devkit(devkit, tmp_path / "cut.tar.gz")
    whole.write_bytes(whole.read_bytes()[:-3000])
    with pytest.raises(DataError, match="labels cannot be read"):
        labels.read(whole)


def test_missing(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match="labels cannot be read"):
            labels.read(path)


def test_labels_are_found_beside_a_source(tmp_path):
    folder, tar = tmp_path / "imagenet" / "val", tmp_path / "imagenet" / "val.tar"
    folder.mkdir(parents=True)
    tar.touch()
    assert labels.beside(folder) is labels.beside(tar) is None
    csv = tmp_path / "imagenet" / "LOC_val_solution.csv"
    csv.touch()
    assert labels.beside(folder) == labels.beside(tar) == csv
    (folder / labels.GROUND_TRUTH).touch()
    assert labels.beside(folder) == folder / labels.GROUND_TRUTH
    assert labels.beside(tar) == csv
