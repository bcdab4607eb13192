"""The protocols under which tokenizers and generators publish ImageNet numbers (facts: their evaluation code)."""

from tokenmark.protocols.base import Protocol

TITOK_VAL50K = Protocol(
    id="titok-val50k",
    version=1,
    title="rFID as TiTok measures it: 50,000 validation images against their own crops, float64 Inception",
    data="imagenet-val-256-bicubic",
    reconstruction_reference="val",
    generation_reference=None,
    samples=50_000,
    crop="bicubic-256",
    uint8_rule="round",
    port="torch-fidelity",
    feature_resize="tf1",
    feature_dtype="float64",
    tf32=False,
    order="index",
    inception_splits="one",
    class_sampling="balanced",
    classes=1000,
    seed=42,
    model_precision="float32",
    stochastic_encoder="seeded-per-batch",
    comparable_with="rFID of TiTok, TA-TiTok and One-D-Piece",
    used_by=("TiTok", "TA-TiTok", "One-D-Piece"),
    differs="the releases decode under float16 or bfloat16 autocast; here the model runs in float32",
)

VAL50K_512 = TITOK_VAL50K.but(
    id="val50k-512",
    title="rFID of tokenizers of 512 px: 50,000 validation images against their own crops, float64 Inception",
    data="imagenet-val-512-bicubic",
    crop="bicubic-512",
    comparable_with="nothing that is known to be published: releases of 512 px name no reference",
    used_by=(),
    differs="",
)

LLAMAGEN_VAL_ADM = Protocol(
    id="llamagen-val-adm",
    version=1,
    title="rFID as LlamaGen measures it: ADM's crop of the validation set, ADM's evaluator",
    data="imagenet-val-256-adm",
    reconstruction_reference="val",
    generation_reference=None,
    samples=50_000,
    crop="adm-256",
    uint8_rule="half-up",
    port="torch-fidelity",
    feature_resize="tf1",
    feature_dtype="float32",
    tf32=False,
    order="shuffled",
    inception_splits="of-5000",
    class_sampling="balanced",
    classes=1000,
    seed=0,
    model_precision="float32",
    stochastic_encoder="seeded-per-batch",
    comparable_with="rFID of LlamaGen, GigaTok (told to use its val npz) and RAE, as far as a port of Inception goes",
    used_by=("LlamaGen", "GigaTok", "RAE"),
    differs="ADM's evaluator runs the TensorFlow graph; where others compared such a port, FID moved by 0.0015",
)

ADM_TRAIN = LLAMAGEN_VAL_ADM.but(
    id="adm-train",
    title="gFID as nearly everybody measures it: 50,000 samples against ADM's statistics of the training set",
    data=None,
    reconstruction_reference=None,
    generation_reference="VIRTUAL_imagenet256_labeled.npz",
    comparable_with="gFID against VIRTUAL_imagenet256_labeled.npz with 50,000 samples; never with an rFID",
    used_by=("TiTok", "RAR", "LlamaGen", "VAR", "DiT", "GigaTok", "RAE", "UniTok"),
    differs="releases differ in how they cut off (TiTok truncates); classes are sampled as each preset says",
)

ADM_TRAIN_512 = ADM_TRAIN.but(
    id="adm-train-512",
    title="gFID at 512 px: 50,000 samples against ADM's statistics of the training set",
    generation_reference="VIRTUAL_imagenet512.npz",
    comparable_with="gFID against VIRTUAL_imagenet512.npz with 50,000 samples",
    used_by=("DiT", "VAR", "MAR", "SparseDiT"),
)

MAR_FORK = ADM_TRAIN.but(
    id="mar-fork",
    title="gFID as MAR and its heirs measure it: torch-fidelity on rounded images, MAR's copy of ADM's statistics",
    generation_reference="adm_in256_stats.npz",
    uint8_rule="round",
    inception_splits="ten",
    comparable_with="gFID against fid_stats/adm_in256_stats.npz with 50,000 samples; it holds no images for precision",
    used_by=("MAR", "xAR", "HiMAR", "TokenBridge", "FlowAR"),
    differs="the releases sample under float16 or bfloat16 autocast; here the model runs in float32",
)

ENAT_FLOAT = ADM_TRAIN.but(
    id="enat-float",
    title="gFID as ENAT measures it: floats into pytorch-fid's Inception, U-ViT's copy of ADM's statistics",
    generation_reference="fid_stats_imagenet256_guided_diffusion.npz",
    uint8_rule="none",
    port="pytorch-fid",
    feature_resize="half-pixel",
    comparable_with="gFID against fid_stats_imagenet256_guided_diffusion.npz, of floats",
    used_by=("ENAT",),
    differs="the release samples in float16 and sums covariances in float32",
)

TOP1_CROP875 = TITOK_VAL50K.but(
    id="top1-crop875",
    title="Top-1 on 50,000 validation images of 224 px, cut from 256 px: DeiT's and ToMe's evaluation",
    data="imagenet-val-224-bicubic-875",
    crop="bicubic-875-224",
    uint8_rule="none",
    port="none",
    feature_resize="none",
    feature_dtype="float32",
    seed=0,
    model_precision="as-given",
    stochastic_encoder="as-given",
    class_sampling="as-given",
    classes=None,
    comparable_with="top-1 of DeiT, ToMe, EViT and others that evaluate by DeiT's script",
    used_by=("DeiT", "ToMe", "DiffRate", "EViT"),
    differs="",
)

TOP1_CROP900 = TOP1_CROP875.but(
    id="top1-crop900",
    title="Top-1 on 50,000 validation images of 224 px, cut from 248 px: timm's evaluation of most models of 224 px",
    data="imagenet-val-224-bicubic-900",
    crop="bicubic-900-224",
    comparable_with="timm's results-imagenet.csv, for models whose crop_pct there is 0.9",
    used_by=("timm",),
)

ZERO_SHOT_224 = TOP1_CROP875.but(
    id="zero-shot-224",
    title="Zero-shot top-1 on 50,000 validation images of 224 px, as CLIP's and open_clip's evaluation prepares them",
    data="imagenet-val-224-bicubic",
    crop="bicubic-224",
    comparable_with="zero-shot ImageNet top-1 of CLIP and open_clip at 224 px, with OpenAI's names and 80 prompts",
    used_by=("CLIP", "open_clip"),
    differs="SigLIP squashes images to squares in its own evaluation; here the centre is cut",
)

IMAGENET = (
    *(TITOK_VAL50K, VAL50K_512, LLAMAGEN_VAL_ADM, ADM_TRAIN, ADM_TRAIN_512, MAR_FORK, ENAT_FLOAT),
    *(TOP1_CROP875, TOP1_CROP900, ZERO_SHOT_224),
)
