"""The protocol of the embedded default data. Its distances are not ImageNet FIDs, and are never shown as such."""

from tokenmark.protocols.base import Protocol

MINI = Protocol(
    id="mini",
    version=1,
    title="Handwritten digits, 32 x 32: features of a small classifier trained on the other 1,297 digits",
    data="digits-32",
    reconstruction_reference="val",
    generation_reference="train",
    samples=500,
    crop="none",
    uint8_rule="round",
    port="mini-features",
    feature_resize="none",
    feature_dtype="float32",
    tf32=False,
    order="index",
    inception_splits="one",
    class_sampling="balanced",
    classes=10,
    seed=0,
    model_precision="float32",
    stochastic_encoder="seeded-per-batch",
    comparable_with="other numbers under `mini` only; no published number",
)
