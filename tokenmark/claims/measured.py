"""Which record stands beside a claim: that of the same method, size and settings whose circumstances differ least."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from tokenmark import protocols
from tokenmark.claims.quantities import QUANTITIES
from tokenmark.claims.schema import UNSTATED, Claim, Subject
from tokenmark.records import Record, Value
from tokenmark.tracks import current

PRECISIONS = {"fp32": "float32", "float32": "float32", "bf16": "bfloat16", "bfloat16": "bfloat16"}
DECISIVE = {
    **{name: ("protocol", "data", "samples") for name, each in QUANTITIES.items() if each.family == "quality"},
    **dict.fromkeys(("macs", "encode-macs", "decode-macs"), ("resolution",)),
}
"""By quantity, the axes on which a source's silence can explain any difference."""
STATISTICS_OF = "imagenet-train"
"""What all statistics that a protocol names are of: ImageNet's training set."""
SINGLE = {UNSTATED, "single run", "single", "one run"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record of what a claim is about, and the axes on which the two differ."""

    record: Record
    value: Value
    differing: tuple[str, ...]
    """In words, one each: `samples: 5,000 claimed, 50,000 measured`."""
    silent: tuple[str, ...]
    """Decisive axes of which the source says nothing."""


class Measured:
    """The current records, found by what they are of."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._of: dict[str, list[Record]] = {}
        for record in current(records):
            self._of.setdefault(record.spec.method, []).append(record)

    def candidates(self, claim: Claim, subject: Subject, value: str) -> list[Candidate]:
        """Records of a subject that have the value, the most alike first, and of equally alike ones the newest."""
        exact = claim.about_quantity.family == "quality"
        alike = (record for record in self._of_method(subject) if is_of(record, subject, exact=exact))
        found = list(_candidates(alike, claim, value))
        newest = sorted(found, key=lambda each: each.record.started, reverse=True)
        return sorted(newest, key=lambda each: len(each.differing))

    def counted(self, claim: Claim) -> bool:
        """Whether the structure of what a claim is about was counted: what its records lack is not told of its kind."""
        return claim.about_quantity.family == "structure" and any(
            record.spec.task == "structure" and is_of(record, claim.subject, exact=False)
            for record in self._of_method(claim.subject)
        )

    def any_setting(self, claim: Claim, subject: Subject, value: str) -> list[Candidate]:
        """Records of a subject at any setting of it."""
        alike = (
            record
            for record in self._of_method(subject)
            if is_of(record, subject.model_copy(update={"settings": _own(record.spec.settings)}))
        )
        return list(_candidates(alike, claim, value))

    def _of_method(self, subject: Subject) -> list[Record]:
        return self._of.get(subject.method or "", [])


def _candidates(records: Iterable[Record], claim: Claim, value: str) -> Iterable[Candidate]:
    silent = tuple(_silent(claim))
    for record in records:
        held = record.value(value)
        if held is not None:
            yield Candidate(record, held, tuple(_differing(claim, record)), silent)


def is_of(record: Record, subject: Subject, *, exact: bool = True) -> bool:
    """Whether a record is of this method, size, settings and length; `exact` asks for the same weights too."""
    spec = record.spec
    return (
        spec.method == subject.method
        and (subject.variant is None or spec.variant == subject.variant)
        and _same_model(spec.model, subject.model, exact=exact and subject.variant is None)
        and spec.tokens == subject.tokens
        and not spec.budget
        and ((subject.variant is not None and not subject.settings) or _same(_own(spec.settings), subject.settings))
        and (subject.preset is None or spec.settings.get("preset") == subject.preset)
    )


def _own(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in settings.items() if name != "preset"}


def _same(one: Mapping[str, JsonValue], other: Mapping[str, JsonValue]) -> bool:
    return one.keys() == other.keys() and all(_plain(one[name]) == _plain(other[name]) for name in one)


def _plain(value: JsonValue) -> JsonValue:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _same_model(measured: str | None, claimed: str | None, *, exact: bool) -> bool:
    """An architecture is the same under any tag; weights are not. A claim that names no tag leaves them open."""
    if measured is None or claimed is None:
        return measured is None or (claimed is None and not exact)
    architecture, _, tag = claimed.partition(".")
    same = measured.partition(".")[0].partition("/")[0] == architecture.partition("/")[0]
    return measured == claimed or (same and (not exact or (not tag and not measured.endswith(".random"))))


def _differing(claim: Claim, record: Record) -> Iterable[str]:
    """The axes of a claim's family on which the record's circumstances are others, as far as the source states them."""
    match claim.about_quantity.family:
        case "structure":
            yield from _resolution(claim, record)
        case "quality":
            yield from _of_quality(claim, record)
        case "speed":
            yield from _of_speed(claim, record)


def _resolution(claim: Claim, record: Record) -> Iterable[str]:
    size = record.value("image_size")
    if isinstance(claim.resolution, int) and size is not None and size.value != claim.resolution:
        yield f"resolution: {claim.resolution} px claimed, {size.value:.0f} px measured"


def _of_quality(claim: Claim, record: Record) -> Iterable[str]:
    spec = record.spec
    if claim.protocol not in {UNSTATED, spec.protocol}:
        yield f"protocol: '{claim.protocol}' claimed, {spec.protocol} measured"
    if claim.data not in {UNSTATED, None} and not _same_data(claim.data or "", _data_of(record)):
        yield f"data: {claim.data} claimed, {' and '.join(spec.data) or 'none'} measured"
    if isinstance(claim.samples, int) and claim.samples != spec.samples:
        yield f"samples: {claim.samples:,} claimed, {spec.samples:,} measured"
    stated = PRECISIONS.get(claim.precision or "")
    if stated and stated != precision_of(record):
        yield f"precision: {stated} claimed, {precision_of(record)} measured"
    if claim.selection not in SINGLE:
        yield f"selection: {claim.selection} claimed, a single run measured"


def _of_speed(claim: Claim, record: Record) -> Iterable[str]:
    """A ratio holds on other devices as far as it holds; a rate is of one device alone."""
    stated = PRECISIONS.get(claim.precision or "")
    if stated and stated != record.spec.precision:
        yield f"precision: {stated} claimed, {record.spec.precision} measured"
    if claim.kind == "absolute":
        device = claim.device or UNSTATED
        if device == UNSTATED or device.lower() not in record.spec.device.lower():
            yield f"device: {device} claimed, {record.spec.device} measured"
        batch = record.value("best_batch")
        if isinstance(claim.batch, int) and batch is not None and batch.value != claim.batch:
            yield f"batch: {claim.batch} claimed, {batch.value:.0f} measured"


def _data_of(record: Record) -> list[str]:
    """Names of the data that a record is of; of statistics, the set that they are of."""
    return [STATISTICS_OF if name.endswith(".npz") else name for name in record.spec.data]


def _silent(claim: Claim) -> Iterable[str]:
    yield from (axis for axis in DECISIVE.get(claim.quantity, ()) if getattr(claim, axis) == UNSTATED)


def precision_of(record: Record) -> str:
    """The type that a record's model ran in: its protocol's, or that of its specification."""
    known = protocols.PROTOCOLS.get(record.spec.protocol)
    fixed = "as-given" if known is None else known.model_precision
    return {"bfloat16-autocast": "bfloat16"}.get(fixed, record.spec.precision)


def _same_data(claimed: str, measured: Sequence[str]) -> bool:
    """ImageNet's splits have other names when they are prepared: they are the same data."""
    if claimed in measured:
        return True
    return claimed.startswith(("imagenet-256", "imagenet-512", "imagenet-1k", "imagenet/")) and any(
        name.startswith("imagenet-") for name in measured
    )
