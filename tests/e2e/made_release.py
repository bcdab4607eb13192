"""A release as papers make them, small: a package of a tokenizer and a generator at 256 px, and weights for them.

The architectures are the repository's own, with small sizes; what is published for them lies on a shelf under the names
that they announce.
"""

from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
from torchvision.models import alexnet

from recipes import drawn
from tokenmark import registry
from tokenmark.extractors.inception import FILE as INCEPTION
from tokenmark.files import sha256_of
from tokenmark.measures.lpips import FILES

CLASSIFIER = "deit_tiny_patch16_224.fb_in1k"
STATISTICS = "VIRTUAL_imagenet256_labeled.npz"
SIZES = """
PIXELS = {
    "image_size": 256, "hidden_channels": 32, "channel_mult": [1, 1, 1, 1, 1], "num_res_blocks": 1, "z_channels": 32,
    "codebook_size": 64,
}
WRITER = {
    "model_type": "ViT", "codebook_size": 64, "condition_num_classes": 1000, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_seq_len": 256,
}
"""
MODULE = (
    SIZES
    + """
import dataclasses

from reference_impls.generators import titok_maskgit
from reference_impls.tokenizers import maskgit_vq
from tokenmark.contracts import Release, Variant

READ = dataclasses.replace(
    maskgit_vq.METHOD,
    id="made-vq",
    variants={"256": Variant(config=PIXELS, release=Release(repo="made/vq", file="model.safetensors"))},
)
WRITE = dataclasses.replace(
    titok_maskgit.METHOD,
    id="made-maskgit",
    variants={
        "256": Variant(
            config=WRITER, tokenizer="made-vq/256", release=Release(repo="made/maskgit", file="pytorch_model.bin")
        )
    },
    presets={"made-paper": dataclasses.replace(titok_maskgit.METHOD.presets["titok-l32-paper"], variants=("256",))},
)
"""
)


def write_package(site: Path) -> Path:
    """The package, as an installer leaves it."""
    (site / "made_release.py").write_text(MODULE)
    info = site / "made_release-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-release\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[tokenmark.methods]\nmade-vq = made_release:READ\nmade-maskgit = made_release:WRITE\n"
    )
    return site


def write_shelf(folder: Path) -> Path:
    """Weights with drawn numbers: the package's two, DeiT-T, and Inception and AlexNet with pins of their own."""
    sizes: dict[str, dict] = {}
    exec(SIZES, sizes)  # the package's own text, a few lines above
    tokenizer = registry.get("maskgit-vq").build(**sizes["PIXELS"])
    generator = registry.get("titok-maskgit").build(tokenizer, **sizes["WRITER"])
    classifier = timm.create_model(CLASSIFIER, pretrained=False)
    saved = {
        "made--vq/model.safetensors": drawn.drawn(tokenizer, 1),
        "made--maskgit/pytorch_model.bin": generator.state_dict(),
        f"timm--{CLASSIFIER}/model.safetensors": classifier.state_dict(),
        FILES["alex"].name: alexnet(weights=None).state_dict(),
    }
    for name, state in saved.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {key: value.contiguous() for key, value in state.items()}
        safetensors.torch.save_file(whole, path) if path.suffix == ".safetensors" else torch.save(whole, path)
    drawn.inception(folder / INCEPTION.name, 2)
    names = (INCEPTION.name, FILES["alex"].name)
    pins = "".join(f'["{name}"]\nsha256 = "{sha256_of(folder / name)}"\n' for name in names)
    (folder / "pins.toml").write_text(pins)
    return folder


def write_statistics(folder: Path) -> Path:
    """A file like ADM's: statistics of both kinds of features, and a few images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    arrays = {"arr_0": rng.integers(0, 256, (5, 256, 256, 3), dtype=np.uint8)}
    for ending, width in (("", 2048), ("_s", 2023)):
        arrays |= {f"mu{ending}": rng.random(width), f"sigma{ending}": np.diag(rng.random(width) + 0.1)}
    np.savez(folder / STATISTICS, **arrays)
    return folder
