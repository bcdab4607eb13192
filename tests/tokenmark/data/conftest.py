"""A made ImageNet in every form. Only to be read."""

import pytest

from tests.tokenmark.data import made_imagenet as made


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    """The made devkit's folder."""
    return made.write_devkit(tmp_path_factory.mktemp("kit") / "data")


@pytest.fixture(scope="session")
def forms(tmp_path_factory):
    """Path by kind of source; each holds the same pictures."""
    folder = tmp_path_factory.mktemp("forms")
    files = made.files()
    shards = folder / "parquet"
    if made.PYARROW:
        made.write_parquet(shards / "data", files)
    return {
        "tar": made.write_tar(folder / "tar" / "ILSVRC2012_img_val.tar", files),
        "flat folder": made.write_flat(folder / "flat", files),
        "class folders": made.write_class_folders(folder / "imagenet" / "val", files).parent,
        "hub's flat folder": made.write_hub_flat(folder / "hub", files),
        "parquet shards": shards,
    }
