"""What a protocol fixes: the axes along which published measurements differ, and what each choice means."""

from typing import Literal

import pydantic

from tokenmark.errors import SuiteError
from tokenmark.files import canonical_json, sha256_text

Crop = Literal[
    "none", "as-given", "adm-256", "bicubic-256", "bicubic-512", "bicubic-224", "bicubic-875-224", "bicubic-900-224"
]
Uint8Rule = Literal["round", "half-up", "truncate", "none"]
Port = Literal["none", "mini-features", "torch-fidelity", "pytorch-fid"]
Resize = Literal["none", "tf1", "half-pixel", "antialiased", "pil-bicubic"]

MEANINGS: dict[str, dict[str, str]] = {
    "crop": {
        "none": "the data set's images as they are",
        "as-given": "whatever made the two sets: the protocol begins at their pixels",
        "adm-256": "halved by box filter while twice too large, bicubic to 256 on the short side, centre crop",
        "bicubic-256": "bicubic with antialiasing to 256 on the short side, centre crop",
        "bicubic-512": "bicubic with antialiasing to 512 on the short side, centre crop",
        "bicubic-224": "bicubic with antialiasing to 224 on the short side, centre crop",
        "bicubic-875-224": "bicubic with antialiasing to 256 on the short side, centre crop of 224",
        "bicubic-900-224": "bicubic with antialiasing to 248 on the short side, centre crop of 224",
    },
    "uint8_rule": {
        "round": "round(255 x), ties to even",
        "half-up": "127.5 (2 x - 1) + 128, cut off: ties go up",
        "truncate": "255 x, cut off: half a grey level darker on average",
        "none": "decoded floats are seen as they are",
    },
    "port": {
        "none": "no feature network: no images are compared",
        "mini-features": "a small classifier of digits in Inception's place",
        "torch-fidelity": "torch-fidelity's port of the graph of 2015, weights-inception-2015-12-05-6726825d.pth",
        "pytorch-fid": "the same weights in pytorch-fid's port, which sees 2 x - 1 instead of (255 x - 128) / 128",
    },
    "feature_resize": {
        "none": "seen at its own size",
        "tf1": "TensorFlow 1's bilinear to 299: corner of pixel 0 on corner of pixel 0, no antialiasing",
        "half-pixel": "bilinear to 299 by pixel centres, no antialiasing",
        "antialiased": "bilinear to 299 by pixel centres, antialiased",
        "pil-bicubic": "Pillow's bicubic to 299 on floats, channel by channel",
    },
    "class_sampling": {
        "balanced": "every class equally often, in turn",
        "random": "classes drawn uniformly",
        "as-given": "whatever made the samples",
    },
    "order": {
        "index": "the order of the data set; no measure of this protocol depends on it",
        "shuffled": "shuffled by the seed before Inception score's splits are cut",
    },
    "inception_splits": {
        "one": "one split of all images, which no order changes",
        "ten": "ten splits",
        "of-5000": "splits of 5,000 images",
    },
    "model_precision": {
        "float32": "float32 throughout",
        "bfloat16-autocast": "torch.autocast in bfloat16 around encoder, sampler and decoder",
        "as-given": "whatever made the images, or what a run names",
    },
    "stochastic_encoder": {
        "seeded-per-batch": "each batch draws its noise from the seed plus the index of its first image",
        "as-given": "whatever made the images",
    },
}
"""What the values of an axis mean, for people."""


class Protocol(pydantic.BaseModel):
    """A named set of choices. Change one, and it is another protocol or version."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    id: str
    version: int
    title: str
    data: str | None
    """Prepared data set that is measured; None where the sets are the caller's own."""
    reconstruction_reference: str | None
    """Split whose originals are the reference of rFID."""
    generation_reference: str | None
    """Split, or statistics file, that is the reference of gFID."""
    samples: int | None
    """N of a full measurement; None where it is the caller's."""
    crop: Crop
    uint8_rule: Uint8Rule
    """How decoded floats in [0, 1] become what the feature network sees."""
    port: Port
    """The feature network and its weights."""
    feature_resize: Resize
    feature_dtype: Literal["float32", "float64"]
    tf32: bool
    order: Literal["index", "shuffled"]
    inception_splits: Literal["one", "ten", "of-5000"]
    """How Inception score's samples are divided."""
    class_sampling: Literal["balanced", "random", "as-given"]
    classes: int | None
    """How many classes are asked for; None where nothing is asked for by class."""
    seed: int
    """Of labels, samplers and stochastic encoders."""
    model_precision: Literal["float32", "bfloat16-autocast", "as-given"]
    stochastic_encoder: Literal["seeded-per-batch", "as-given"]
    comparable_with: str
    """Which published numbers a number under this protocol may stand beside."""
    used_by: tuple[str, ...] = ()
    """Releases that publish under it, as far as their evaluation code shows."""
    differs: str = ""
    """What still sets a number from here apart from the release's own."""

    @property
    def sha256(self) -> str:
        """Hash of every axis that can move a number: two protocols measure alike if and only if this is the same."""
        words = {"title", "comparable_with", "used_by", "differs"}
        return sha256_text(canonical_json(self.model_dump(mode="json", exclude=words)))

    def split(self, task: str) -> tuple[str, str]:
        """Data set and split that a task reads: a generation's is its reference, any other's the held-out images.

        Raises:
            SuiteError: the protocol has no data of its own, or no reference for this task.
        """
        found = self.generation_reference if task == "generation" else self.reconstruction_reference
        if self.data is None or found is None:
            raise SuiteError(
                f"protocol {self.id} has no data of its own for {task}: see `tokenmark protocols {self.id}`"
            )
        return self.data, found

    def splits(self, n: int) -> int:
        """Parts in which the Inception score of `n` images is computed; fewer than wanted where images are too few."""
        return {"one": 1, "ten": min(10, max(n // 2, 1)), "of-5000": max(n // 5_000, 1)}[self.inception_splits]

    def but(self, **changes: object) -> "Protocol":
        """Another protocol that differs in these fields alone."""
        return Protocol.model_validate({**self.model_dump(), **changes})

    def axes(self) -> list[tuple[str, str, str]]:
        """Each axis with its value and what that means."""
        rows = []
        for name, value in self.model_dump(exclude={"id", "version", "title", "used_by", "differs"}).items():
            shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
            missing = "the caller's" if name in {"data", "samples", "classes"} else "none"
            rows.append((name, missing if value is None else shown, MEANINGS.get(name, {}).get(str(value), "")))
        return rows
