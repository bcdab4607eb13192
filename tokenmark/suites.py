"""Suites: what is measured, one TOML file each. A suite names jobs; every job becomes one or more runs."""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import Field, JsonValue

from tokenmark import protocols
from tokenmark.errors import SuiteError, UnknownNameError
from tokenmark.spec import Precision, TaskName
from tokenmark.tasks import TASKS


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class _Job(_Strict):
    method: str
    measures: list[str] | None = None
    """None takes the suite's for this task."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """None takes the suite's."""


class ReconstructionJob(_Job):
    """Encode and decode the held-out images; `tokens` gives one run per length."""

    task: Literal["reconstruction"]
    variant: str
    tokens: list[Annotated[int, Field(ge=1)]] | None = None


class GenerationJob(_Job):
    """Sample images by class; `reducer` reduces the tokens of a diffusion sampler, beside the sampler without it."""

    task: Literal["generation"]
    variant: str
    preset: str
    reducer: str | None = None
    reducer_settings: dict[str, JsonValue] = {}
    samples: Annotated[int, Field(ge=2)] | None = None
    """None takes the protocol's."""


class ClassificationJob(_Job):
    """Classify the held-out images with a reduced model, and time it.

    Either a `model` is named, whose tokens the method reduces, or a `variant` of the method's own.
    """

    task: Literal["classification"]
    model: str | None = None
    variant: str | None = None
    settings: dict[str, JsonValue] = {}
    budget: list[str] = []
    """What it may cost (`3.0G`, `60%`): one run for each, of the method's dearest setting that fits."""
    precision: Precision = "float32"
    """The type of the model's weights and tokens; accuracy is measured in the one that is timed."""

    @pydantic.model_validator(mode="after")
    def _one_classifier(self) -> "ClassificationJob":
        if (self.model is None) == (self.variant is None):
            raise ValueError("name either a model, or a variant of the method's own")
        if self.variant is not None and (self.settings or self.budget):
            raise ValueError("a variant has settings of its own: leave settings and budget out")
        return self


class TokenizationJob(_Job):
    """Time a tokenizer of a variant's size, its weights drawn: speed needs neither data nor weights."""

    task: Literal["tokenization"]
    variant: str
    precision: Precision = "float32"


class SamplingJob(_Job):
    """Time a generator of a variant's size, its weights drawn, as a preset samples."""

    task: Literal["sampling"]
    variant: str
    preset: str
    reducer: str | None = None
    reducer_settings: dict[str, JsonValue] = {}
    precision: Precision = "float32"


class StructureJob(_Job):
    """Count what a method is made of: a variant of its own, or its reduction of a model's tokens.

    `tokens` gives one more run for each of these lengths of a variant's code; a generator costs what its `preset` says.
    """

    task: Literal["structure"]
    variant: str | None = None
    tokens: list[Annotated[int, Field(ge=1)]] = []
    preset: str | None = None
    model: str | None = None
    settings: dict[str, JsonValue] = {}

    @pydantic.model_validator(mode="after")
    def _one_network(self) -> "StructureJob":
        if (self.model is None) == (self.variant is None):
            raise ValueError("name either a model, or a variant of the method's own")
        if self.variant is not None and self.settings:
            raise ValueError("a variant has settings of its own: leave settings out")
        if self.variant is None and self.preset is not None:
            raise ValueError("a preset is a generator's: name its variant, and no model")
        return self


Samples = GenerationJob | SamplingJob
"""Jobs that sample a generator."""
Job = ReconstructionJob | GenerationJob | ClassificationJob | TokenizationJob | SamplingJob | StructureJob


class TimingTable(_Strict):
    """How throughput is timed; see `tokenmark.measures.throughput.Timing`."""

    batches: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    min_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    min_rounds: Annotated[int, Field(ge=2)]
    compiled: bool = False


class Suite(_Strict):
    """One suite file."""

    version: Literal[1]
    title: str
    protocol: str
    batch_size: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """None takes the protocol's."""
    timing: TimingTable | None = None
    """None where nothing is timed."""
    measures: dict[TaskName, list[str]] = {}
    """By task: what its jobs have that list none; without it, those that are usual for the task."""
    jobs: list[Annotated[Job, Field(discriminator="task")]] = Field(min_length=1)


def find(name: str, folder: Path) -> Path:
    """The file of a suite: a path to one, or a name in `folder`.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name.endswith(".toml") and Path(name).is_file():
        return Path(name)
    path = folder / f"{name}.toml"
    if not path.is_file():
        raise UnknownNameError("suite", name, [known.stem for known in folder.glob("*.toml")])
    return path


def load(path: Path) -> Suite:
    """Read a suite and check every name that needs no method's file to be imported.

    Raises:
        SuiteError: it is not TOML, or has an unknown key, a wrong type, or a measure that its task does not have.
        UnknownNameError: its protocol does not exist.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror}") from error
    try:
        suite = Suite.model_validate(raw)
    except pydantic.ValidationError as error:
        raise SuiteError(f"{path}: {first_line(error)}") from error
    protocols.get(suite.protocol)
    for task, measures in suite.measures.items():
        _check(measures, task, f"{path}: measures")
    for place, job in enumerate(suite.jobs):
        _check(job.measures or (), job.task, f"{path}: jobs.{place}")
    jobs = [job.model_copy(update={"measures": job.measures or suite.measures.get(job.task)}) for job in suite.jobs]
    return suite.model_copy(update={"jobs": jobs})


def _check(measures: Iterable[str], task: TaskName, where: str) -> None:
    for measure in measures:
        if measure not in TASKS[task].measures:
            known = UnknownNameError(f"measure of task {task}", measure, TASKS[task].measures)
            raise SuiteError(f"{where}: {known}")


def first_line(error: pydantic.ValidationError) -> str:
    """The first problem as `where: what is wrong`, with the nearest key for a misspelt one."""
    first = error.errors()[0]
    tags = set(TASKS)
    place = [str(part) for part in first["loc"]]
    # pydantic puts the job's tag into the path; a reader of the file does not know it
    where = ".".join(part for at, part in enumerate(place) if not (part in tags and place[at - 1].isdigit()))
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place[-1], _keys(), n=1)
        return f"{where}: unknown key" + (f"; did you mean '{near[0]}'?" if near else "")
    if first["type"] == "union_tag_invalid":
        return f"{where}: unknown task {first['ctx']['tag']}; tasks are {', '.join(sorted(tags))}"
    got: Any = first["input"]
    shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
    return f"{where}: {first['msg'].removeprefix('Value error, ')}{shown}"


def _keys() -> set[str]:
    models = (Suite, TimingTable, *get_args(Job))
    return {name for model in models for name in model.model_fields}
