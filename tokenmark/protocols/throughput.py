"""The protocol of speed alone: no data set is read, and nothing that depends on pixels or weights is measured."""

from tokenmark.protocols.base import Protocol

NO_DATA = "none"
"""The data set of a protocol that reads none."""

THROUGHPUT = Protocol(
    id="throughput",
    version=1,
    title="Speed alone: random images that lie on the device, weights that may be random, no accuracy",
    data=NO_DATA,
    reconstruction_reference="none",
    generation_reference="none",
    crop="none",
    uint8_rule="none",
    features="none",
    feature_resize="none",
    feature_dtype="float32",
    tf32=False,
    order="index",
    class_sampling="balanced",
    model_precision="float32",
    stochastic_encoder="seeded-per-batch",
    comparable_with="other numbers under `throughput` on the same device, in the same precision and batch sizes",
)
