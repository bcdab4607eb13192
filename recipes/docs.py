"""`nox -s docs [-- --check]`: write what the documentation says of today's weights and records."""

import io
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from recipes import findings, reduction, samplers, zoo
from tokenmark import tables
from tokenmark.cells import significant
from tokenmark.protocols import PROTOCOLS
from tokenmark.protocols.base import MEANINGS
from tokenmark.store import Results
from tokenmark.terminal import WIDTH

SITE = "tokenmark"
"""The site of the records that come with the repository; whoever measures in a clone has another."""
MOST = 20
"""Rows of a table in README.md."""
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"
CARDS = ("reference_impls/weights", "tokenmark/weights")
WEIGHTS_HEAD = """# Weights

The small models that `nox -s bench-mini` measures, or measures with. All were trained on the 1,297 digits that are
not held out, by `nox -s train-mini -- NAME --again` (which goes on where it was stopped). Each lies beside a card, a
TOML file with its SHA-256, the whole recipe, the seed, the manifests of its data and what it reaches; a file that is
not its card's is refused. `nox -s docs` writes this page from the cards.

They are small so that everybody can run everything. What they reach says something of these models on these digits,
and nothing of the papers' models on ImageNet.
"""


def weights_page(root: Path) -> str:
    """docs/weights.md: a section per card."""
    return WEIGHTS_HEAD + "".join(_section(path) for path in _cards(root))


def _cards(root: Path) -> Iterator[Path]:
    for folder in CARDS:
        yield from sorted((root / folder).glob("*.toml"))


def _section(card_path: Path) -> str:
    card: dict[str, Any] = tomllib.loads(card_path.read_text(encoding="utf-8"))
    recipe = card["recipe"]
    size = card_path.with_suffix(".safetensors").stat().st_size / 1e6
    rows = {
        "file": f"`{card_path.parent.parent.name}/weights/{card['name']}.safetensors`, {size:.2f} MB",
        "parameters": f"{card['parameters']:,}",
        "follows": recipe["source"],
        "differs": recipe["differs"],
        "training": f"{recipe['epochs']} epochs of batches of {recipe['batch']}, learning rate {recipe['lr']},"
        f" weight decay {recipe['weight_decay']}, seed {recipe['seed']}",
        "needs": ", ".join(f"`{name}`" for name in recipe["needs"]),
        "reaches, held out": ", ".join(f"{name} {value:.4g}" for name, value in card["reaches"].items()),
        "train again": f"`{card['command']}`",
    }
    lines = "\n".join(f"| {key} | {text} |" for key, text in rows.items() if text)
    return f"\n## {card['name']}\n\n| | |\n|---|---|\n{lines}\n"


def readme(root: Path) -> str:
    """README.md with the tables of the project's own records between its marks."""
    text = (root / "README.md").read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    out = io.StringIO()
    every = Results(root / "results").all()
    records = [record for record in every if (record.spec.site, record.spec.suite) == (SITE, "mini")]
    tables.print_tracks(records, Console(file=out, width=WIDTH, highlight=False), most=MOST)
    shown = "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())
    return f"{head}{BEGIN}\n```text\n{shown}\n```\n{END}{tail}"


PROTOCOLS_HEAD = """# Protocols

A protocol is everything around a method that can move its number. It has a name and a version; change one choice, and
it is another protocol. Tables never rank rows of different protocols together. `tokenmark protocols NAME` shows one in
full. `nox -s docs` writes this page from the protocols themselves.

The names are those under which the field knows the numbers: releases, and libraries called without options.
"""
MOVEMENT = "results/movement.json"
MOVEMENT_HEAD = """
## How far the same images move

{n} images against {n}: {originals}, against {judged}. Measured by `{command}` on {machine}, at commit {commit}.

Grey levels are those of what the network sees at 299 x 299, beside what it sees under `torch-fidelity`, over all pixels
of the judged images (a `pytorch-fid` network's input is put on torch-fidelity's scale); no weights enter there.
{weights}

"""
PUBLISHED = "FID is with the published weights. N is small and the windows overlap: only the movement means something."
DRAWN = (
    "**FID is with random weights**, drawn from seed {drawn_from_seed}, because the published file is not in the"
    " repository: such a number is no FID of anything. It says that the distance moves, and in which protocols it moves"
    " more than in others; how far it moves with the published weights is what"
    " `nox -s movement -- --weights weights-inception-2015-12-05-6726825d.pth` writes here. N is small and the windows"
    " overlap."
)
MOVEMENT_FOOT = """
`llamagen-val-adm` and `adm-train` differ in their reference, which is the same here, so their rows are alike; against
`torch-fidelity` they differ in ties of rounding, `titok-val50k` in float64. All crops are left out: these images are
256 x 256 already.
"""
AXES = {"crop": "crop", "8-bit rule": "uint8_rule", "network": "port", "resize": "feature_resize"}


def protocols_page(root: Path) -> str:
    """docs/protocols.md: what each fixes, and what the choices mean."""
    heads = ["protocol", *AXES, "numbers", "N", "used by"]
    lines = ["", "## What each fixes", "", _row(heads), _row(["---"] * len(heads))]
    for protocol in PROTOCOLS.values():
        n = f"{protocol.samples:,}" if protocol.samples else "the caller's"
        choices = [getattr(protocol, field) for field in AXES.values()]
        lines.append(_row([f"`{protocol.id}`", *choices, protocol.feature_dtype, n, ", ".join(protocol.used_by)]))
    lines += ["", "## What still differs from the release", ""]
    lines += [f"- `{protocol.id}`: {protocol.differs}." for protocol in PROTOCOLS.values() if protocol.differs]
    lines += ["", "## What the choices mean"]
    for name, field in AXES.items():
        lines += ["", f"**{name.capitalize()}**", ""]
        lines += [f"- `{value}`: {meaning}." for value, meaning in MEANINGS[field].items()]
    return PROTOCOLS_HEAD + "\n".join(lines) + "\n" + _movement(root / MOVEMENT)


def _movement(path: Path) -> str:
    """How far one pair of image sets moves under each protocol, as `nox -s movement` found it."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    base = next(row["fid"] for row in found["rows"] if row["protocol"] == "torch-fidelity")
    weights, images, environment = found["weights"], found["images"], found["environment"]
    published, fid = weights["published"], "FID" if weights["published"] else "FID, drawn weights"
    heads = ["protocol", "grey levels, mean", "grey levels, largest", fid, "from torch-fidelity"]
    lines = [_row(heads), _row(["---", *["---:"] * 4])]
    for row in found["rows"]:
        levels = [f"{row[name]:.3f}" for name in ("mean_grey_levels", "max_grey_levels")]
        percent = round(100 * (row["fid"] / base - 1), 2) + 0.0  # no -0
        cells = [significant(row["fid"], 6), f"{percent:+.2f} %"]
        lines.append(_row([f"`{row['protocol']}`", *levels, *cells]))
    facts = {
        "n": images["n"],
        "originals": images["originals"],
        "judged": images["judged"],
        "weights": PUBLISHED if published else DRAWN.format(**weights),
        "command": found["command"],
        "machine": f"{environment['device_name']}, torch {environment['libraries']['torch']}",
        "commit": environment["commit"][:12],
    }
    return MOVEMENT_HEAD.format(**facts) + "\n".join(lines) + "\n" + MOVEMENT_FOOT


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; end with status 2 if something is not of today.")
def main(check: bool) -> None:
    """Write README.md's tables and docs/weights.md from records and cards."""
    root = Path.cwd()
    stale = []
    pages = {
        "README.md": readme(root),
        "docs/weights.md": weights_page(root),
        "docs/protocols.md": protocols_page(root),
        "docs/tokenizers.md": zoo.page(root),
        "docs/generators.md": samplers.page(root),
        "docs/reducers.md": reduction.reducers_page(root),
        "docs/backbones.md": reduction.backbones_page(),
        "docs/findings.md": findings.page(root),
    }
    for path, text in ((root / name, text) for name, text in pages.items()):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if not check:
                path.write_text(text, encoding="utf-8")
    click.echo(f"{'not of today' if check else 'written'}: {', '.join(stale)}" if stale else "all is of today")
    if check and stale:
        raise SystemExit(2)


if __name__ == "__main__":
    main()
