"""From a suite to runs: every job is checked by name, then becomes specifications with every hash in place."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from tokenmark import (
    __version__,
    backbones,
    budgets,
    build,
    networks,
    protocols,
    provenance,
    references,
    registry,
    splits,
)
from tokenmark.contracts import GeneratorMethod, Method, ReducerMethod, TokenizerMethod
from tokenmark.errors import SuiteError, TokenmarkError, UnknownNameError
from tokenmark.jobs import NO_IMAGES, check_names, measures_of
from tokenmark.measures import lpips
from tokenmark.measures.throughput import Timing
from tokenmark.protocols import Protocol
from tokenmark.protocols.throughput import NO_DATA
from tokenmark.shelf import Shelf
from tokenmark.spec import RunSpec
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
from tokenmark.tasks.base import SEEN, Context
from tokenmark.weights import Weights

PROMPTS = "prompts/openai-80"
"""What a zero-shot classifier is told, under the name that records give it."""
ANY_DEVICE = "any device"
"""Where nothing depends on the device."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A run that can start, or the reason why it cannot."""

    title: str
    spec: RunSpec | None = None
    problem: TokenmarkError | None = None
    warnings: tuple[str, ...] = ()
    """What its record must say of its weights."""


def plan(
    suite: Suite, name: str, context: Context, site: str, only: tuple[str, ...] = (), limit: int | None = None
) -> list[Planned]:
    """All runs of a suite, or those of the methods in `only`, in its order; of at most `limit` images each.

    Weights or data that are missing or altered become the problem of the runs that need them, and of no others.
    """
    check_names(suite)
    protocol = protocols.get(suite.protocol)
    planned: list[Planned] = []
    for job in suite.jobs:
        if only and job.method not in only:
            continue
        for part in _parts(job):
            words = (word for name, word in part.items() if name != "precision")
            title = " ".join(str(word) for word in (job.method, *words) if word)
            try:
                # weights first: nobody should prepare 10 GB of images for a method that cannot run
                found = _weights(job, protocol, context.shelf)
                spec = _spec(suite, name, job, part, protocol, context, site, found, limit)
            except TokenmarkError as error:
                planned.append(Planned(title, problem=error))
            else:
                warnings = tuple(text for each in found for text in each.warnings)
                planned.append(Planned(spec.title, spec, warnings=warnings))
    return planned


def chosen(planned: Sequence[Planned], runs: Sequence[str]) -> list[Planned]:
    """Of planned runs those whose run or experiment begins with one of `runs`; all where none is named.

    Raises:
        UnknownNameError: no run that can start begins with one of them.
    """
    specs = [each.spec for each in planned if each.spec is not None]
    for prefix in runs:
        if not any(name.startswith(prefix) for spec in specs for name in (spec.run, spec.experiment)):
            raise UnknownNameError("run", prefix, [spec.run[: max(len(prefix), 12)] for spec in specs])
    if not runs:
        return list(planned)
    begin = tuple(runs)
    wanted = {spec.run for spec in specs if spec.run.startswith(begin) or spec.experiment.startswith(begin)}
    return [each for each in planned if each.spec is not None and each.spec.run in wanted]


def _parts(job: Job) -> list[dict[str, Any]]:
    """The runs of one job: one, or one per length of code."""
    match job:
        case ReconstructionJob(tokens=None):
            return [{"variant": job.variant}]
        case ReconstructionJob():
            return [{"variant": job.variant, "tokens": tokens} for tokens in job.tokens or ()]
        case GenerationJob() | SamplingJob():
            return _parts_of_sampler(job)
        case TokenizationJob():
            return [{"variant": job.variant, "precision": job.precision}]
        case StructureJob():
            return _parts_of_structure(job)
        case ClassificationJob():
            return _parts_of_classification(job)


def _parts_of_sampler(job: Samples) -> list[dict[str, Any]]:
    settings: dict[str, JsonValue] = {"preset": job.preset}
    if job.reducer is not None:
        settings |= {"reducer": job.reducer} | _given(registry.in_sampler(job.reducer), job.reducer_settings)
    part: dict[str, Any] = {"variant": job.variant, "settings": settings}
    return [part | ({"precision": job.precision} if isinstance(job, SamplingJob) else {})]


def _parts_of_structure(job: StructureJob) -> list[dict[str, Any]]:
    if job.model is None:
        settings = {} if job.preset is None else {"preset": job.preset}
        return [{"variant": job.variant, "tokens": tokens, "settings": settings} for tokens in (None, *job.tokens)]
    return [{"model": job.model, "settings": _given(registry.get_as(ReducerMethod, job.method), job.settings)}]


def _parts_of_classification(job: ClassificationJob) -> list[dict[str, Any]]:
    if job.model is None:
        model = build.own_variant(job.method, job.variant or "").config.get("model")
        return [{"variant": job.variant, "model": model, "precision": job.precision}]
    settings = _given(registry.get_as(ReducerMethod, job.method), job.settings)
    facts: dict[str, Any] = {"model": job.model, "precision": job.precision, "settings": settings}
    return [{**facts, "budget": budget} for budget in job.budget] or [facts]


def _given(method: Method, settings: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The settings that a suite gives, as the method's own types read them.

    The others are in the method's source, whose hash is in the specification.
    """
    read = build.settings_of(method, settings)
    return {name: _plain(getattr(read, name)) for name in settings}


def _plain(value: Any) -> JsonValue:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _spec(
    suite: Suite,
    name: str,
    job: Job,
    part: dict[str, Any],
    protocol: Protocol,
    context: Context,
    site: str,
    found: list[Weights],
    limit: int | None,
) -> RunSpec:
    if part.get("budget"):
        found_settings = budgets.fit(job.method, part["model"], part["settings"], part["budget"]).settings
        part = {**part, "settings": _given(registry.get_as(ReducerMethod, job.method), found_settings)}
    data, images = _data(job, protocol, context.data)
    if isinstance(job, ClassificationJob) and part.get("model") and backbones.get(part["model"]).classes:
        from tokenmark import zeroshot  # noqa: PLC0415  open_clip takes seconds to import, and few runs need it

        data = {**data, PROMPTS: zeroshot.prompts_sha256()}
    measures = measures_of(job)
    timed = "throughput" in measures
    return RunSpec(
        suite=name,
        task=job.task,
        method=job.method,
        implementation=build.implementation(job.method, part.get("variant"), part.get("settings", {})),
        weights={each.name: each.sha256 for each in found},
        data=data,
        protocol=protocol.id,
        protocol_version=protocol.version,
        protocol_sha256=protocol.sha256,
        measures=measures,
        timing=_timing(suite) if timed else {},
        samples=min(images, limit) if limit is not None else images,
        batch_size=job.batch_size or suite.batch_size,
        seed=protocol.seed if suite.seed is None else suite.seed,
        tokenmark=__version__,
        device=ANY_DEVICE if isinstance(job, StructureJob) else provenance.device_label(context.device),
        site=site,
        **part,
    )


def _data(job: Job, protocol: Protocol, folder: Path) -> tuple[dict[str, str], int]:
    """The hash of what a run compares with or reads, by name, and how many images it is of."""
    if protocol.data == NO_DATA or isinstance(job, NO_IMAGES):
        return {}, 0
    if isinstance(job, GenerationJob):
        samples = job.samples if job.samples is not None else protocol.samples
        if samples is None:
            raise SuiteError(f"protocol {protocol.id} fixes no number of samples: give job {job.method} its own")
        return references.check(protocol, folder), samples
    data = splits.load(protocol, job.task, folder)
    n = len(data) if protocol.samples is None else min(len(data), protocol.samples)
    return {"/".join(protocol.split(job.task)): data.manifest.sha256}, n


def _timing(suite: Suite) -> dict[str, JsonValue]:
    table, usual = suite.timing, Timing()
    if table is None:
        raise SuiteError(f"suite '{suite.title}' times something and does not say how: give it a [timing] table")
    timing = Timing(
        tuple(table.batches),
        table.min_seconds,
        table.min_rounds,
        # who asks for a short look does not wait for a long warm-up
        warm_seconds=min(usual.warm_seconds, table.min_seconds),
        max_warm_seconds=min(usual.max_warm_seconds, 5.0 * table.min_seconds),
        compiled=table.compiled,
    )
    return {key: _plain(value) for key, value in dataclasses.asdict(timing).items()}


def _weights(job: Job, protocol: Protocol, shelf: Shelf) -> list[Weights]:
    """All weights that a run reads, their bytes checked."""
    if isinstance(job, NO_IMAGES):
        return []
    if isinstance(job, ClassificationJob):
        own = build.own_weights(job.method, job.variant, shelf) if job.variant is not None else None
        model = job.model or build.own_variant(job.method, job.variant or "").config.get("model")
        return _there([own, backbones.weights_of(model, shelf) if model else None])
    measures = set(measures_of(job))
    if isinstance(job, ReconstructionJob):
        tokenizer = registry.get_as(TokenizerMethod, job.method)
        own = build.weights_of(tokenizer, job.variant, shelf)
        parts = build.parts_of(registry.variant_of(tokenizer, job.variant), shelf).values()
        return _there([own, *parts, _told(tokenizer, shelf), *_judges(measures, protocol, shelf)])
    method = registry.get_as(GeneratorMethod, job.method)
    own = build.weights_of(method, job.variant, shelf)
    decoder, size = build.tokenizer_of(method, registry.variant_of(method, job.variant))
    pixels = build.weights_of(registry.get_as(TokenizerMethod, decoder), size, shelf)
    return _there([own, pixels, _told(method, shelf), *_judges(measures, protocol, shelf)])


def _told(method: TokenizerMethod | GeneratorMethod, shelf: Shelf) -> Weights | None:
    """The weights of the network that reads what a decoder or a generator is told in words."""
    if not method.text:
        return None
    from tokenmark import texts  # noqa: PLC0415  open_clip takes seconds, and few methods need it

    return texts.check(method.text, shelf)


def _judges(measures: set[str], protocol: Protocol, shelf: Shelf) -> list[Weights | None]:
    """The weights of the networks by which images are measured."""
    seen_by = networks.check(protocol, shelf) if measures & SEEN else None
    return [seen_by, lpips.check("alex", shelf) if "lpips" in measures else None]


def _there(found: list[Weights | None]) -> list[Weights]:
    """Without those of methods that have none."""
    return [each for each in found if each is not None]
