"""What the jobs of a suite ask for, by names alone: neither data nor weights need be here."""

from typing import Any

from tokenmark import backbones, budgets, build, protocols, registry
from tokenmark.contracts import ClassifierMethod, GeneratorMethod, ReducerMethod, TokenizerMethod
from tokenmark.errors import SuiteError
from tokenmark.protocols import Protocol
from tokenmark.protocols.throughput import NO_DATA
from tokenmark.suites import (
    ClassificationJob,
    GenerationJob,
    Job,
    ReconstructionJob,
    Samples,
    SamplingJob,
    StructureJob,
    Suite,
    TokenizationJob,
)
from tokenmark.tasks import TASKS

NO_IMAGES = (TokenizationJob, SamplingJob, StructureJob)
"""Jobs that read no data and no weights."""


def measures_of(job: Job) -> tuple[str, ...]:
    """What a job measures."""
    return tuple(job.measures if job.measures is not None else TASKS[job.task].usual)


def check_names(suite: Suite) -> None:
    """Refuse a suite that names what does not exist, before anything is measured.

    Raises:
        UnknownNameError: a method, variant, preset, model or setting that does not exist.
        SuiteError: a setting of a wrong type, or a measure that needs data or weights which are not there.
    """
    for job in suite.jobs:
        _check_measures(job, protocols.get(suite.protocol))
        match job:
            case ReconstructionJob() | TokenizationJob():
                registry.variant_of(registry.get_as(TokenizerMethod, job.method), job.variant)
            case GenerationJob() | SamplingJob():
                _check_preset(job.method, job.variant, job.preset)
                _check_reducer(job)
            case StructureJob(variant=str(variant), preset=str(preset)):
                _check_preset(job.method, variant, preset)
            case StructureJob(variant=str(variant)):
                found: Any = registry.get_as((TokenizerMethod, GeneratorMethod, ClassifierMethod), job.method)
                registry.variant_of(found, variant)
            case StructureJob(model=str(model)):
                backbones.get(model)
                build.settings_of(registry.get_as(ReducerMethod, job.method), job.settings)
            case ClassificationJob(model=None):
                build.own_variant(job.method, job.variant or "")
            case ClassificationJob(model=str(model)):
                backbones.get(model)
                build.settings_of(registry.get_as(ReducerMethod, job.method), job.settings)
                for budget in job.budget:
                    budgets.parse(budget)


def _check_preset(name: str, variant: str, preset: str) -> None:
    method = registry.get_as(GeneratorMethod, name)
    registry.variant_of(method, variant)
    build.preset_of(method, preset, variant)


def _check_reducer(job: Samples) -> None:
    against = {"psnr", "ssim", "lpips"} & set(measures_of(job))
    if job.reducer is not None:
        build.settings_of(registry.in_sampler(job.reducer), job.reducer_settings)
    elif job.reducer_settings:
        raise SuiteError(f"job {job.method} has reducer_settings and no reducer: name one, or leave them out")
    elif against:
        raise SuiteError(
            f"job {job.method} measures {', '.join(sorted(against))}, which compare with the unreduced sampler:"
            " name a reducer, or leave them out"
        )


def _check_measures(job: Job, protocol: Protocol) -> None:
    speed = "list measures = ['cost', 'throughput']"
    if isinstance(job, NO_IMAGES):
        return
    if protocol.data == NO_DATA and not isinstance(job, ClassificationJob):
        raise SuiteError(f"protocol {protocol.id} reads no data, which {job.task} needs: choose another protocol")
    if not isinstance(job, ClassificationJob) or "accuracy" not in measures_of(job):
        return
    if protocol.data == NO_DATA:
        raise SuiteError(f"protocol {protocol.id} reads no data, so {job.method} has no accuracy there: {speed}")
    if job.model is not None:
        _check_accuracy(job, job.model, protocol, speed)


def _check_accuracy(job: ClassificationJob, model: str, protocol: Protocol, speed: str) -> None:
    """Refuse the accuracy of what knows nothing, or knows other classes."""
    known = backbones.get(model)
    if known.classes and not str(protocol.data).startswith("imagenet-"):
        raise SuiteError(f"{model} is told ImageNet's classes, and {protocol.data} has others: choose another protocol")
    if registry.get_as(ReducerMethod, job.method).trained:
        raise SuiteError(f"{job.method} has weights of its own, and no accuracy untrained: name a variant, or {speed}")
    if known.random:
        raise SuiteError(f"{model} has random weights, so {job.method} has no accuracy on it: {speed}")
