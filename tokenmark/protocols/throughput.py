"""The protocol of speed alone: no data set is read, and nothing that depends on pixels or weights is measured."""

from tokenmark.protocols.base import Protocol

NO_DATA = "none"
"""The data set of a protocol that reads none."""

THROUGHPUT = Protocol(
    id="throughput",
    version=1,
    title="Speed alone: random images that lie on the device, weights that may be random, no accuracy",
    data=NO_DATA,
    reconstruction_reference=None,
    generation_reference=None,
    samples=None,
    crop="none",
    uint8_rule="none",
    port="none",
    feature_resize="none",
    feature_dtype="float32",
    tf32=False,
    order="index",
    inception_splits="one",
    class_sampling="as-given",
    classes=None,
    seed=0,
    model_precision="as-given",
    stochastic_encoder="as-given",
    comparable_with="other numbers under `throughput` on the same device, in the same precision and batch sizes",
)
