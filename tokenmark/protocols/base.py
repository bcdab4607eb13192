"""What a protocol fixes."""

from typing import Literal

import pydantic

from tokenmark.files import canonical_json, sha256_text


class Protocol(pydantic.BaseModel):
    """The axes along which published measurements differ. Change one, and it is another protocol or version."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    id: str
    version: int
    title: str
    data: str
    """Data set whose held-out split is measured."""
    reconstruction_reference: str
    """Split whose originals are the reference of rFID."""
    generation_reference: str
    """Split whose images are the reference of gFID."""
    crop: str
    uint8_rule: Literal["round", "none"]
    """How decoded floats become what the feature network sees: `round` is `round(255 x) / 255`."""
    features: str
    """The feature network, by name."""
    feature_resize: str
    feature_dtype: Literal["float32", "float64"]
    tf32: bool
    order: Literal["index"]
    class_sampling: Literal["balanced"]
    """Labels of generated samples: `balanced` cycles through the classes."""
    model_precision: Literal["float32"]
    stochastic_encoder: Literal["seeded-per-batch"]
    comparable_with: str
    """Which published numbers a number under this protocol may stand beside."""

    @property
    def sha256(self) -> str:
        """Hash of every axis: two protocols are the same if and only if this is."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))
