"""The machine and the software that measure."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

import psutil
import torch

from tokenmark.files import sha256_of
from tokenmark.records import Environment

LIBRARIES = ("torch", "timm", "torchmetrics", "numpy", "scipy", "scikit-learn", "pillow", "safetensors")


def environment(device: torch.device) -> Environment:
    """Describe where a run takes place, as far as the machine tells."""
    commit, dirty = _revision()
    lock = Path(os.environ["TOKENMARK_LOCK"]) if "TOKENMARK_LOCK" in os.environ else None
    cuda = device.type == "cuda"
    return Environment(
        commit=commit,
        dirty=dirty,
        lock=lock.name if lock else None,
        lock_sha256=sha256_of(lock) if lock and lock.is_file() else None,
        python=platform.python_version(),
        platform=platform.platform(),
        device=device.type,
        device_name=device_name(device),
        cores=psutil.cpu_count(logical=True) or 1,
        threads=torch.get_num_threads(),
        memory_bytes=psutil.virtual_memory().total,
        driver=_nvidia_driver() if cuda else None,
        cuda=torch.version.cuda if cuda else None,
        libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
        tf32=cuda and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
        attention_backends=_attention_backends(device),
    )


def device_name(device: torch.device) -> str:
    """The device's own name: the graphics card's, or the processor's."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def device_label(device: torch.device) -> str:
    """The device as it stands in a specification: kind, name and, for a processor, the threads in use."""
    name = f"{device.type}: {device_name(device)}"
    return name if device.type == "cuda" else f"{name}, {torch.get_num_threads()} threads"


def _revision() -> tuple[str | None, bool | None]:
    """Commit of this package's own checkout (not of the user's folder), and whether tracked files differ."""
    folder = Path(__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit and _git(folder, "ls-files", "--error-unmatch", Path(__file__).name):
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
        return commit, changes != "" if changes is not None else None
    try:  # an installed wheel: PEP 610 says which commit it was built from, if it came from version control
        text = importlib.metadata.distribution("tokenmark").read_text("direct_url.json")
        return json.loads(text or "{}").get("vcs_info", {}).get("commit_id"), None
    except importlib.metadata.PackageNotFoundError:
        return None, None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _nvidia_driver() -> str | None:
    path = Path("/sys/module/nvidia/version")
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def _attention_backends(device: torch.device) -> tuple[str, ...]:
    """The kernels that scaled_dot_product_attention may choose from."""
    if device.type != "cuda":
        return ("cpu",)
    enabled = {
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "memory-efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
    }
    return tuple(name for name, on in enabled.items() if on)
