"""What would measure a claim that nothing has measured: the command, and what it needs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokenmark import protocols, registry, suites
from tokenmark.claims.schema import UNSTATED, Claim, Subject
from tokenmark.contracts import GeneratorMethod, Method, ReducerMethod, TokenizerMethod, Variant
from tokenmark.errors import TokenmarkError
from tokenmark.suites import Job, Suite


@dataclass(frozen=True, slots=True)
class Commands:
    """The suites there are, by name."""

    suites: Mapping[str, Suite] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path) -> "Commands":
        """The suites of a folder; none where it is not there."""
        return cls({path.stem: suites.load(path) for path in sorted(folder.glob("*.toml"))})

    def to_run(self, claim: Claim) -> tuple[str | None, str]:
        """The command that would measure a claim, if there is one, and in words what it needs."""
        subject = claim.subject
        try:
            method = registry.get(subject.method or "")
        except TokenmarkError as error:
            return None, f"the method: {error}"
        adaptive = isinstance(method, ReducerMethod) and getattr(method.reduction, "adaptive", False)
        match claim.about_quantity.family:
            case "structure" if claim.kind != "iso-accuracy" and not adaptive:
                return self._of_structure(claim)
            case "speed" if isinstance(method, GeneratorMethod) and self._holding("sampling", claim.subject):
                suite = self._holding("sampling", claim.subject)[0]
                return f"nox -s tokenmark -- run {suite} --method {method.id}", _gpu(claim)
            case "speed":
                return _of_speed(subject, claim, tokenizer=isinstance(method, TokenizerMethod))
            case _:
                return self._of_quality(claim, method)

    def _of_structure(self, claim: Claim) -> tuple[str | None, str]:
        if self._holding("structure", claim.subject):
            return f"nox -s structure -- --method {claim.subject.method}", "minutes on any machine"
        return None, f"a job in suites/structure.toml: {_job('structure', claim.subject)}"

    def _of_quality(self, claim: Claim, method: Method) -> tuple[str | None, str]:
        task = _task(method)
        named = self._holding(task, claim.subject, claim.protocol)
        data = self._reference(named[0]) if task == "generation" and named else _data(claim)
        needs = f"{data}, {_weights(method, claim.subject)}"
        if named:
            command = f"nox -s tokenmark -- run {named[0]} --method {method.id} --data PATH --weights hub"
            return command, f"{needs}, and a GPU"
        return None, f"{needs}, and a job in a suite under the claim's protocol: {_job(task, claim.subject)}"

    def _reference(self, suite: str) -> str:
        """What generated images are compared with under a suite's protocol."""
        protocol = protocols.get(self.suites[suite].protocol)
        return str(protocol.generation_reference) if protocol.data is None else f"the data set {protocol.data}"

    def _holding(self, task: str, subject: Subject, protocol: str | None = None) -> list[str]:
        """Names of suites with a job of this subject, under the protocol where one is given."""
        known = {suite.protocol for suite in self.suites.values()}
        return [
            name
            for name, suite in self.suites.items()
            if (protocol not in known or suite.protocol == protocol)
            and suite.protocol != "mini"
            and any(job.task == task and _is_of(job, subject) for job in suite.jobs)
        ]


def _task(method: Method) -> str:
    match method:
        case TokenizerMethod():
            return "reconstruction"
        case GeneratorMethod():
            return "generation"
        case _:
            return "classification"


def _data(claim: Claim) -> str:
    named = claim.data or UNSTATED
    return "ImageNet's validation set" if named.startswith("imagenet") or named == UNSTATED else f"the data set {named}"


def _weights(method: Method, subject: Subject) -> str:
    """Whose weights the number is of, and whether anybody published them."""
    variants: Mapping[str, Variant] = getattr(method, "variants", {})
    if subject.variant is not None and subject.variant in variants:
        released = variants[subject.variant].release is not None
        name = f"{method.id}/{subject.variant}"
        return f"the released weights of {name}" if released else f"weights of {name}, which no hub has"
    if isinstance(method, ReducerMethod) and method.trained:
        return "fine-tuned weights"
    return f"timm's weights of {subject.model}" if subject.model else "its weights"


def _is_of(job: Job, subject: Subject) -> bool:
    model, tag = (subject.model or "").partition(".")[::2]
    has = getattr(job, "model", None) or ""
    return (
        job.method == subject.method
        and getattr(job, "reducer", None) is None
        and (subject.preset is None or getattr(job, "preset", None) in {subject.preset, None})
        and (subject.variant is None or getattr(job, "variant", None) == subject.variant)
        and (has == subject.model if tag else has.partition(".")[0] == model)
        and (subject.variant is not None or dict(getattr(job, "settings", {})) == subject.settings)
    )


def _gpu(claim: Claim) -> str:
    device = claim.device if claim.device and claim.device != UNSTATED else ""
    return f"a GPU ({device} in the source)" if device else "a GPU"


def _of_speed(subject: Subject, claim: Claim, *, tokenizer: bool) -> tuple[str | None, str]:
    needs = _gpu(claim)
    if tokenizer:
        return f"nox -s bench-throughput -- --tokenizers {subject.method}/{subject.variant}", needs
    if subject.model is None:
        return None, f"{needs} and a job in a throughput suite: {_job('classification', subject)}"
    given = " ".join(f"--set {subject.method}.{name}={value}" for name, value in subject.settings.items())
    command = (
        f"nox -s bench-throughput -- --models {subject.model.partition('.')[0]} --methods {subject.method} {given}"
    )
    return command.rstrip(), needs


def _job(task: str, subject: Subject) -> str:
    """A job as it would stand in a suite."""
    parts = {"task": task, "method": subject.method, "variant": subject.variant, "model": subject.model}
    words = [f'{name} = "{value}"' for name, value in parts.items() if value]
    if subject.settings:
        words.append(
            "settings = { "
            + ", ".join(f"{name} = {json.dumps(value)}" for name, value in subject.settings.items())
            + " }"
        )
    return "{ " + ", ".join(words) + " }"
