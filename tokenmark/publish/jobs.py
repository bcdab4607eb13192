"""Whether a job of a suite gives a run, by names alone: neither data nor weights need be here."""

from tokenmark import build, jobs, protocols, registry
from tokenmark.contracts import ReducerMethod
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
)


def gives(job: Job, loaded: Suite, spec: RunSpec) -> bool:
    """Whether this job of a suite, once planned, has a run with the specification's names, settings and measures.

    Raises:
        TokenmarkError: the specification has a setting that its method does not have.
    """
    seed = protocols.get(loaded.protocol).seed if loaded.seed is None else loaded.seed
    asked = (job.task, job.method, job.batch_size or loaded.batch_size, seed)
    if asked != (spec.task, spec.method, spec.batch_size, spec.seed):
        return False
    return jobs.measures_of(job) == spec.measures and _timed(loaded, spec) and _of_task(job, spec)


def _timed(loaded: Suite, spec: RunSpec) -> bool:
    """Whether it was timed as long, as often and in such batches as the suite says."""
    if "throughput" not in spec.measures:
        return not spec.timing
    table = loaded.timing.model_dump(mode="json") if loaded.timing else {}
    return bool(table) and all(spec.timing.get(name) == each for name, each in table.items())


def _of_task(job: Job, spec: RunSpec) -> bool:
    match job:
        case ReconstructionJob():
            lengths: list[int | None] = [*job.tokens] if job.tokens else [None]
            return job.variant == spec.variant and spec.tokens in lengths
        case GenerationJob():
            return _sampled(job, spec)
        case SamplingJob():
            return job.precision == spec.precision and _sampled(job, spec)
        case ClassificationJob(model=str()):
            asked = spec.budget in job.budget if job.budget else not spec.budget
            return asked and (job.model, job.precision) == (spec.model, spec.precision) and _set(job, spec)
        case StructureJob():
            asked = (job.variant, job.model) == (spec.variant, spec.model) and spec.tokens in {None, *job.tokens}
            return asked and _set(job, spec)
        case _:
            return (job.variant, job.precision) == (spec.variant, spec.precision)


def _sampled(job: Samples, spec: RunSpec) -> bool:
    """Whether the run samples by the job's preset, with its reducer if it has one."""
    reducer = {} if job.reducer is None else {"reducer": job.reducer}
    held = {name: value for name, value in spec.settings.items() if name in build.SAMPLER}
    if (job.variant, {"preset": job.preset, **reducer}) != (spec.variant, held):
        return False
    given = {name: value for name, value in spec.settings.items() if name not in build.SAMPLER}
    if job.reducer is None:
        return not given
    found = registry.in_sampler(job.reducer)
    return bool(build.settings_of(found, given) == build.settings_of(found, job.reducer_settings))


def _set(job: ClassificationJob | StructureJob, spec: RunSpec) -> bool:
    """Whether the run has what the job sets; a budget finds the method's own knob."""
    if job.model is None:
        preset = job.preset if isinstance(job, StructureJob) else None
        return spec.settings == ({} if preset is None else {"preset": preset})
    found = registry.get_as(ReducerMethod, job.method)
    given, held = build.settings_of(found, job.settings), build.settings_of(found, spec.settings)
    free = {found.knob.setting} if spec.budget and found.knob else set()
    names = {*job.settings, *spec.settings} - free
    return all(getattr(given, name) == getattr(held, name) for name in names)
