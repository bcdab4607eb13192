"""The protocols that read no data: speed alone, and structure alone. Nothing depends on pixels or weights."""

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

STRUCTURE = THROUGHPUT.but(
    id="structure",
    title="What a method is made of, at its official size: counted from shapes, with no weights, images or device",
    comparable_with="the sizes and costs that papers print: they depend on nothing but the architecture",
)
