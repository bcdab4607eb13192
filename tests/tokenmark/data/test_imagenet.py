"""What is known of ImageNet: classes, names, counts."""

import pytest
from timm.data.imagenet_info import ImageNetInfo

from tokenmark.data.imagenet import COLLECTIONS, class_of, validation_name, wnids

VAL, TRAIN = COLLECTIONS["imagenet-val"], COLLECTIONS["imagenet-train"]


def test_classes_are_those_that_everybody_has():
    assert list(wnids()) == ImageNetInfo("imagenet-1k").label_names()
    assert list(wnids()) == sorted(set(wnids()))
    assert (class_of()["n01440764"], class_of()["n15075141"]) == (0, 999)


NAMES = [
    (VAL, "ILSVRC2012_val_00000001.JPEG", ("ILSVRC2012_val_00000001.JPEG", None)),
    (VAL, "ILSVRC2012_val_00050000.jpg", ("ILSVRC2012_val_00050000.JPEG", None)),
    (VAL, "ILSVRC2012_val_00000293_n01440764.JPEG", ("ILSVRC2012_val_00000293.JPEG", "n01440764")),
    (VAL, "ILSVRC2012_val_00000000.JPEG", None),
    (VAL, "ILSVRC2012_val_00050001.JPEG", None),
    (VAL, "ILSVRC2012_val_0000001.JPEG", None),
    (VAL, "ILSVRC2012_val_00000001.JPEG.part", None),
    (VAL, "ILSVRC2012_val_00000001.xml", None),
    (VAL, "ILSVRC2012_test_00000001.JPEG", None),
    (VAL, "copy of ILSVRC2012_val_00000001.JPEG", None),
    (VAL, "n01440764_10026.JPEG", None),
    (TRAIN, "n01440764_10026.JPEG", ("n01440764_10026.JPEG", "n01440764")),
    (TRAIN, "n01440764_10026_n01440764.JPEG", ("n01440764_10026.JPEG", "n01440764")),
    (TRAIN, "ILSVRC2012_val_00000001.JPEG", None),
]


@pytest.mark.parametrize(("collection", "name", "expected"), NAMES, ids=[f"{c.split}-{name}" for c, name, _ in NAMES])
def test_names(collection, name, expected):
    assert collection.canonical(name) == expected


def test_published_names():
    names = list(VAL.published())
    assert (len(names), names[0], names[-1]) == (VAL.images, validation_name(1), validation_name(50_000))
    assert all(VAL.canonical(name) == (name, None) for name in names)
    assert names == sorted(set(names))
    assert list(TRAIN.published()) == []
