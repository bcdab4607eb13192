"""What a library computes when it is called without options, on two sets of 8-bit images that somebody made."""

from tokenmark.protocols.base import Protocol

TORCH_FIDELITY = Protocol(
    id="torch-fidelity",
    version=1,
    title="torch-fidelity's FID of two sets of 8-bit images",
    data=None,
    reconstruction_reference=None,
    generation_reference=None,
    samples=None,
    crop="as-given",
    uint8_rule="round",
    port="torch-fidelity",
    feature_resize="tf1",
    feature_dtype="float32",
    tf32=False,
    order="shuffled",
    inception_splits="ten",
    class_sampling="as-given",
    classes=None,
    seed=0,
    model_precision="as-given",
    stochastic_encoder="as-given",
    comparable_with="FID by torch-fidelity on images of the same crop, with the same N",
    used_by=("UniTok", "DiTo"),
    differs="torch-fidelity leaves TF32 as it finds it",
)

CLEAN_FID = TORCH_FIDELITY.but(
    id="clean-fid",
    title="clean-fid's FID in mode `clean`",
    feature_resize="pil-bicubic",
    comparable_with="FID by clean-fid, mode `clean`, with the same N",
    used_by=(),
    differs="clean-fid runs NVIDIA's TorchScript of the graph, here it is torch-fidelity's port",
)

PYTORCH_FID = TORCH_FIDELITY.but(
    id="pytorch-fid",
    title="pytorch-fid's FID of two folders of 8-bit images",
    port="pytorch-fid",
    feature_resize="half-pixel",
    comparable_with="FID by pytorch-fid on files of the same crop, with the same N",
    used_by=("LightningDiT", "TokenFlow", "ALIT", "KARL"),
    differs="those releases make their files by other rules (truncating, or 127.5 x + 128)",
)

PYTORCH_FID_FLOAT = PYTORCH_FID.but(
    id="pytorch-fid-float",
    title="pytorch-fid's network on decoded floats that never were 8-bit",
    uint8_rule="none",
    comparable_with="rFID of releases that feed floats to pytorch-fid's Inception",
    used_by=("SEED-Voken", "Open-MAGVIT2", "IBQ", "SimVQ", "BSQ-ViT", "GaussianToken"),
    differs="the releases crop by other resize libraries (albumentations, Lanczos)",
)

TORCHMETRICS_17 = TORCH_FIDELITY.but(
    id="torchmetrics-1.7",
    title="torchmetrics' FrechetInceptionDistance up to 1.7, given floats in [0, 1]",
    uint8_rule="truncate",
    comparable_with="FID by torchmetrics before 1.8, given floats, with the same N",
    used_by=(),
    differs="given 8-bit images it is torch-fidelity's; torchmetrics leaves TF32 as it finds it",
)

TORCHMETRICS_18 = TORCHMETRICS_17.but(
    id="torchmetrics-1.8",
    title="torchmetrics' FrechetInceptionDistance from 1.8 on, given floats in [0, 1]",
    feature_resize="antialiased",
    comparable_with="FID by torchmetrics 1.8 or newer, given floats, with the same N",
    used_by=(),
    differs="SoftVQ, MAETok and VTBench use torchmetrics; which side of 1.8 depends on their installation",
)

LIBRARIES = (TORCH_FIDELITY, CLEAN_FID, PYTORCH_FID, PYTORCH_FID_FLOAT, TORCHMETRICS_17, TORCHMETRICS_18)
