"""Checks of what a record names: method, suite, protocol, and the hashes of what it was made of."""

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from tokenmark import backbones, build, protocols, registry, suites
from tokenmark.contracts import ClassifierMethod, GeneratorMethod, ReducerMethod, TokenizerMethod
from tokenmark.plan import PROMPTS
from tokenmark.protocols.throughput import NO_DATA
from tokenmark.publish.jobs import gives
from tokenmark.publish.numbers import NOT_OF_SAMPLES
from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record
from tokenmark.spec import RunSpec

IMAGELESS = ("tokenization", "sampling", "structure")
"""Tasks that read no images, whatever their protocol."""


def method(_: Subject, record: Record, __: Known) -> str | None:
    """Its method is known here, and has the variant, model, preset and settings that it names."""
    _named(record.spec)
    return None


def _named(spec: RunSpec) -> None:
    match spec.task:
        case "reconstruction" | "tokenization":
            registry.variant_of(registry.get_as(TokenizerMethod, spec.method), spec.variant or "")
        case "generation" | "sampling":
            _preset(spec)
        case "structure" if "preset" in spec.settings:
            _preset(spec)
        case "structure" if spec.model is None:
            owner: Any = registry.get_as((TokenizerMethod, GeneratorMethod, ClassifierMethod), spec.method)
            registry.variant_of(owner, spec.variant or "")
        case _:
            _reduced(spec)


def _preset(spec: RunSpec) -> None:
    """The names of a generator's size, and of what it samples by."""
    found = registry.get_as(GeneratorMethod, spec.method)
    registry.variant_of(found, spec.variant or "")
    build.preset_of(found, str(spec.settings.get("preset")), spec.variant or "")
    if "reducer" in spec.settings:
        own = {name: value for name, value in spec.settings.items() if name not in build.SAMPLER}
        build.settings_of(registry.in_sampler(str(spec.settings["reducer"])), own)


def _reduced(spec: RunSpec) -> None:
    """The names of a classifier, and of what reduces its tokens."""
    registry.get_as((ReducerMethod, ClassifierMethod), spec.method)
    if spec.model is not None:
        backbones.get(spec.model)
    if spec.variant is not None:
        build.own_variant(spec.method, spec.variant)
    else:
        build.settings_of(registry.get_as(ReducerMethod, spec.method), spec.settings)


def suite(_: Subject, record: Record, known: Known) -> str | None:
    """Its suite is one of the repository's, and has a job that gives this run."""
    spec = record.spec
    loaded = suites.load(suites.find(spec.suite, known.checkout.root / "suites"))
    if loaded.protocol != spec.protocol:
        return f"suite {spec.suite} measures under protocol {loaded.protocol}, not {spec.protocol}"
    if not any(gives(job, loaded, spec) for job in loaded.jobs):
        return f"suite {spec.suite} has no job that gives {spec.title} with these measures, batch size and seed"
    return None


def protocol(_: Subject, record: Record, __: Known) -> str | None:
    """Its protocol is today's by id, version and hash."""
    spec = record.spec
    today = protocols.get(spec.protocol)
    if (spec.protocol_version, spec.protocol_sha256) == (today.version, today.sha256):
        return None
    if spec.protocol_version == today.version:
        return f"protocol {today.id} v{today.version} has another hash than the record names: measure again"
    return f"protocol {today.id} is v{today.version} today, the record has v{spec.protocol_version}: measure again"


def implementation(_: Subject, record: Record, __: Known) -> str | None:
    """Its method's source is today's."""
    if record.spec.implementation == build.implementation_of(record.spec):
        return None
    return f"the source of {record.spec.method} is not what was measured: measure again at today's commit"


def samples(_: Subject, record: Record, __: Known) -> str | None:
    """It is of as many images as its protocol takes, and no part of its data was left out."""
    spec = record.spec
    wanted = protocols.get(spec.protocol).samples
    limited = next((text for text in record.warnings if text.startswith("not comparable:")), None)
    if wanted is not None and spec.samples not in {0, wanted}:
        return f"it is of {spec.samples:,} images where protocol {spec.protocol} takes {wanted:,}: leave out --limit"
    if spec.samples == 0 and set(spec.measures) - set(NOT_OF_SAMPLES):
        return f"it measures {', '.join(spec.measures)} of no images"
    return f"its own warning says: {limited}" if limited else None


def data(_: Subject, record: Record, known: Known) -> str | None:
    """Its data are those of its protocol and known: embedded ones are made again, others are as in other records."""
    spec = record.spec
    wanted = _read(spec)
    if wanted is not None and wanted not in spec.data:
        return f"protocol {spec.protocol} reads {wanted} for {spec.task}, which the record does not name"
    for name, digest in spec.data.items():
        problem = (
            _known_data(record, name, digest, known) if name in {wanted, PROMPTS} else f"nothing here reads {name}"
        )
        if problem:
            return problem
    return None


def _read(spec: RunSpec) -> str | None:
    """The data that a run reads, as records name them; None where it reads none."""
    found = protocols.get(spec.protocol)
    if spec.task in IMAGELESS or found.data == NO_DATA:
        return None
    if found.data is None:
        return found.generation_reference
    return "/".join(found.split(spec.task))


def _known_data(record: Record, name: str, digest: str, known: Known) -> str | None:
    from tokenmark.publish import inputs  # noqa: PLC0415  scikit-learn and open_clip take seconds to import

    made = inputs.data(name, record.environment.libraries)
    if made is not None:
        return (
            None
            if digest == made
            else f"{name} has another hash than what is made here: measure on the data as they are"
        )
    if _as_seen(name, digest, (other.spec.data for other in known.others(record)), known):
        return None
    return f"{name} is not what the other records were measured on: prepare it again by `tokenmark prepare`"


def _as_seen(name: str, digest: str, others: Iterable[Mapping[str, str]], known: Known) -> bool:
    """Whether other records name these bytes too; of what none names, a reader is told that nobody vouches for it."""
    seen = {held[name] for held in others if name in held}
    if not seen:
        known.note(f"{name}: the first records of it; nothing here says whether its hash {digest[:12]} is right")
    return not seen or digest in seen


def weights(_: Subject, record: Record, known: Known) -> str | None:
    """Every weights file is bundled, or has the published or pinned hash, or is what other records read."""
    if not record.spec.weights and _needs_judge(record.spec):
        return f"{', '.join(record.spec.measures)} need a network that judges, and the record names no weights"
    for name, digest in record.spec.weights.items():
        problem = _known_weights(record, name, digest, known)
        if problem:
            return problem
    return None


def _needs_judge(spec: RunSpec) -> bool:
    from tokenmark.tasks.base import SEEN  # noqa: PLC0415  as above

    return bool(SEEN & set(spec.measures))


def _known_weights(record: Record, name: str, digest: str, known: Known) -> str | None:
    card = _card(name)
    if card is not None:
        return None if digest == card else f"weights {name} are not the repository's: measure with those that are"
    from tokenmark.publish import inputs  # noqa: PLC0415  the catalogue imports every method

    if not inputs.nameable(name, record.spec):
        return f"weights {name} are known to no method, classifier or measure here"
    stated = inputs.stated(name, known.checkout.root, record.spec)
    if stated is not None:
        return None if digest == stated else f"weights {name} have another SHA-256 than was published: get them again"
    if _as_seen(name, digest, (other.spec.weights for other in known.others(record)), known):
        return None
    return f"weights {name} are not those of the other records: pin the right ones, and measure again"


def _card(name: str) -> str | None:
    """The hash on the card of bundled weights; None where none are bundled under that name."""
    packages = {"tokenmark", *(location.package for location in registry.locations().values())}
    for package in sorted(packages):
        card = registry.package_folder(package) / "weights" / f"{name}.toml"
        if card.is_file():
            return str(tomllib.loads(card.read_text(encoding="utf-8")).get("sha256"))
    return None
