"""Write a trained model and its card into its package."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import nn

from recipes.mini.training import Recipe
from tokenmark import registry
from tokenmark.backbones import Normalised
from tokenmark.data.prepared import PreparedData
from tokenmark.files import sha256_of, write_atomic

NOT_ON_CARD = {"package", "build", "loss", "reaches"}


def paths(recipe: Recipe) -> tuple[Path, Path]:
    """Where the weights and the card of a recipe lie."""
    folder = registry.package_folder(recipe.package) / "weights"
    return folder / f"{recipe.name}.safetensors", folder / f"{recipe.name}.toml"


def write(recipe: Recipe, model: nn.Module, train: PreparedData, held_out: PreparedData) -> dict[str, float]:
    """Write weights, then the card that names their hash; what the model reaches is measured here."""
    weights_path, card_path = paths(recipe)
    inner = model.model if isinstance(model, Normalised) else model
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in inner.state_dict().items()}
    write_atomic(weights_path, safetensors.torch.save(state))
    reached = recipe.reaches(model, held_out)
    facts = {
        "name": recipe.name,
        "sha256": sha256_of(weights_path),
        "parameters": sum(tensor.numel() for tensor in inner.parameters()),
        "licence": "Apache-2.0",
        "command": f"nox -s train-mini -- {recipe.name} --again",
    }
    settings = {
        field.name: getattr(recipe, field.name)
        for field in dataclasses.fields(recipe)
        if field.name not in NOT_ON_CARD | {"name"}
    }
    data = {
        "name": train.manifest.name,
        "train_manifest_sha256": train.manifest.sha256,
        "held_out_manifest_sha256": held_out.manifest.sha256,
    }
    held = {key: round(value, 6) for key, value in reached.items()}
    sections = [_lines(facts), "[recipe]", _lines(settings), "[data]", _lines(data)]
    sections += ["[reaches]", "# on the 500 held-out digits, none of which was trained on", _lines(held)]
    write_atomic(card_path, ("\n".join(sections) + "\n").encode())
    return reached


def _lines(values: Mapping[str, object]) -> str:
    """TOML keys and values; JSON's strings, numbers, booleans and flat lists are TOML's."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None)
