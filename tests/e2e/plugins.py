"""Packages of strangers, made as an installer leaves them: modules, and a .dist-info that announces entry points."""

from pathlib import Path

REDUCER = """
import math

import torch
from torch import nn

from tokenmark.contracts import BlockCost, BlockTokens, Paper, ReducerMethod, VitCost


class Reduced(nn.Module):
    schedule = (BlockTokens(65, 65),) * 12
    cost = VitCost(embed=3072 * 48, blocks=(BlockCost(4 * 48**2, 2 * 48, 8 * 48**2),) * 12, head=480)
    extra_macs = 0
    adaptive = False

    def __init__(self, model):
        super().__init__()
        self.model = model

    def counts(self, images):
        return torch.full((len(images), 12, 2), 65)

    def forward(self, images):
        {forward}
        return self.model(images)


def build(model, settings, *, attention="fused"):
    {build}
    return Reduced(model)


METHOD = ReducerMethod(
    id="{id}",
    title="{title}",
    idea="Made for a test",
    paper=Paper(title="{title}", authors="Nobody", year=2026, url="{url}"),
    build=build,
)
"""

TOKENIZER = '''
import torch
from torch import nn
from torch.nn import functional

from tokenmark.contracts import Paper, TokenizerInfo, TokenizerMethod, Tokens, Variant


class Rows(nn.Module):
    """The mean brightness of rows of pixels in 16 levels: the first `tokens` rows of 16, the others grey."""

    info = TokenizerInfo(
        image_size=32, max_tokens=16, codebook_sizes=(16,), bits_per_token=4.0,
        variable_length=True, stochastic=False, parameters=0,
    )

    def encode(self, images, tokens=None, generator=None):
        codes = (functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), (16, 1)).flatten(1) * 15).round().long()
        codes = codes[:, : tokens or 16]
        lengths = torch.full((len(codes),), codes.shape[1])
        return Tokens(lengths=lengths, bits=lengths.double() * 4, codes=codes)

    def decode(self, tokens):
        codes = tokens.codes
        rows = torch.full((len(codes), 16), 0.5)
        rows[:, : codes.shape[1]] = codes / 15
        images = functional.interpolate(rows.view(-1, 1, 16, 1), size=(32, 32)).expand(-1, 3, -1, -1)
        {decode}
        return images


METHOD = TokenizerMethod(
    id="{id}",
    title="{id}",
    idea="Made for a test",
    paper=Paper(title="Rows", authors="Nobody", year=2026, url="https://example.org"),
    build=Rows,
    variants={{"r16": Variant()}},
)
'''


def reducer(
    name: str, *, forward: str = "pass", build: str = "pass", title: str = "Made", url: str = "https://example.org"
):
    """The source of a reducer that keeps all tokens, with a statement in its `forward` or `build`."""
    return REDUCER.format(id=name, forward=forward, build=build, title=title, url=url)


def tokenizer(name: str, *, decode: str = "pass"):
    """The source of a tokenizer of variable length, with a statement in its `decode`."""
    return TOKENIZER.format(id=name, decode=decode)


def install(folder: Path, package: str, methods: dict[str, str]) -> Path:
    """Put a package of methods, by id, into a folder; the folder is to be put on the import path."""
    place = folder / package
    place.mkdir(parents=True)
    (place / "__init__.py").touch()
    for name, source in methods.items():
        (place / f"{name.replace('-', '_')}.py").write_text(source, encoding="utf-8")
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    entries = "".join(f"{name} = {package}.{name.replace('-', '_')}:METHOD\n" for name in methods)
    (info / "entry_points.txt").write_text(f"[tokenmark.methods]\n{entries}", encoding="utf-8")
    return folder


def job(method: str) -> str:
    """A classification with a reducer."""
    return f'{{ task = "classification", method = "{method}", model = "vit-mini", measures = ["accuracy", "cost"] }}'
