"""The one training loop: AdamW with warm-up and cosine decay, optional EMA, progress, resuming."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional

from tokenmark.data.prepared import PreparedData

SAVE_EVERY_SECONDS = 20.0


@dataclass(frozen=True)
class Batch:
    """What a loss sees: images `(B, 3, H, W)` in [0, 1], labels `(B,)`, and how far the training is (0 to 1)."""

    images: Tensor
    labels: Tensor
    progress: float
    generator: torch.Generator
    indices: Tensor


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training gives, its data aside."""

    name: str
    package: str
    """The package in whose `weights/` folder the result belongs."""
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Batch], Tensor]
    epochs: int
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: float = 0.05
    """Share of the steps over which the rate rises."""
    clip: float = 1.0
    ema: float | None = 0.995
    augment: bool = True
    seed: int = 0
    needs: tuple[str, ...] = ()
    """Recipes that must have been run before."""
    source: str = ""
    """Paper and section that the loss follows."""
    differs: str = ""
    """What differs from the paper, in words."""
    reaches: Callable[[nn.Module, PreparedData], dict[str, float]] = field(default=lambda _module, _data: {})
    """Numbers on the held-out split, for the card."""


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Small random rotations (15 degrees), scales (12 %), shears and shifts (2 pixels): digits stay what they are."""
    n = len(images)

    def uniform(half: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * half

    angle, scale, shear = uniform(0.26), 1 + uniform(0.12), uniform(0.15)
    shift_x, shift_y = uniform(2 / 16), uniform(2 / 16)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack([cos, sin + shear, shift_x], 1), torch.stack([-sin, cos, shift_y], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid.to(images.device), align_corners=False).clamp(0, 1)


def train(recipe: Recipe, data: PreparedData, state_path: Path, device: torch.device) -> nn.Module:
    """Train, or go on with a training that was stopped; gives the model (its EMA, if there is one)."""
    torch.manual_seed(recipe.seed)
    model = recipe.build().to(device).to(memory_format=torch.channels_last)  # convolutions are faster so
    average = recipe.build().to(device).eval() if recipe.ema else None
    if average is not None:
        average.load_state_dict(model.state_dict())
    optimizer = _optimizer(model, recipe)
    per_epoch = len(data) // recipe.batch
    steps = recipe.epochs * per_epoch
    first = _resume(state_path, model, average, optimizer)
    columns = (TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn())
    times = (TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    saved = time.monotonic()
    model.train()
    with Progress(*columns, *times) as progress:
        shown = progress.add_task(recipe.name, total=recipe.epochs, completed=first, rate="")
        for epoch in range(first, recipe.epochs):
            begun, total = time.monotonic(), 0.0
            for at, batch in enumerate(_batches(recipe, data, epoch, device)):
                rate = _rate(recipe, (epoch * per_epoch + at) / steps)
                total += _step(recipe, model, average, optimizer, batch, rate)
            note = f"loss {total / per_epoch:.4f}, {len(data) / (time.monotonic() - begun):.0f} images/s"
            progress.update(shown, advance=1, rate=note)
            if not progress.console.is_terminal and epoch % max(recipe.epochs // 10, 1) == 0:
                progress.console.print(f"{recipe.name}: epoch {epoch + 1} of {recipe.epochs}, {note}")
            if time.monotonic() - saved > SAVE_EVERY_SECONDS or epoch == recipe.epochs - 1:
                _save(state_path, model, average, optimizer, epoch + 1)
                saved = time.monotonic()
    return (average or model).eval()


def _batches(recipe: Recipe, data: PreparedData, epoch: int, device: torch.device) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    images, labels = data.batch(0, len(data))
    order = torch.randperm(len(data), generator=generator)
    for at in range(len(data) // recipe.batch):
        places = order[at * recipe.batch : (at + 1) * recipe.batch]
        chosen = images[places]
        if recipe.augment:
            chosen = augmented(chosen, generator)
        progress = (epoch + at * recipe.batch / len(data)) / recipe.epochs
        yield Batch(
            chosen.to(device, memory_format=torch.channels_last), labels[places].to(device), progress, generator, places
        )


def _step(
    recipe: Recipe,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    rate: float,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = recipe.loss(model, batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    if average is not None and recipe.ema is not None:
        for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - recipe.ema)
            else:
                kept.copy_(new)
    return float(loss.detach())


def _rate(recipe: Recipe, done: float) -> float:
    if done < recipe.warmup:
        return recipe.lr * (done + 1e-3) / recipe.warmup
    share = (done - recipe.warmup) / (1 - recipe.warmup)
    return recipe.lr * (0.02 + 0.98 * 0.5 * (1 + float(torch.cos(torch.tensor(share * torch.pi)))))


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)


def _save(
    path: Path, model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer, epoch: int
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    if average is not None:
        state["average"] = average.state_dict()
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _resume(path: Path, model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average is not None:
        average.load_state_dict(state["average"])
    return int(state["epoch"])
