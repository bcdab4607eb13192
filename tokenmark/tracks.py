"""What is shown of records: tracks with their columns. Terminal tables and the site are made from these alone."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tokenmark.cells import (
    Column,
    bare,
    distance,
    name_cell,
    p_value,
    parameters_cell,
    ranged,
    sampling_cell,
    signed,
)
from tokenmark.records import Record


@dataclass(frozen=True, slots=True)
class Track:
    """One kind of measurement: which records it shows, and what of them."""

    id: str
    title: str
    about: str
    value: str
    """The value that a record must have to be in this track, and by which its rows are ranked."""
    rising: bool
    """Whether more is better."""
    columns: tuple[Column, ...]
    holds: Callable[[Record], bool] = lambda record: True  # noqa: ARG005
    """Which of the records that have the value belong here."""

    def filled(self, group: "Group") -> list[Column]:
        """The columns in which some row of the group has something."""
        return [column for column in self.columns if any(column.cell(record).text for record in group.records)]

    def rank(self, records: Iterable[Record]) -> list[Record]:
        """Records from best to worst; equal ones in the order of their titles."""
        sign = -1.0 if self.rising else 1.0
        return sorted(records, key=lambda record: (sign * _number(record, self.value), record.spec.title))


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that may be ranked together: one protocol, data set, sample count, device and site."""

    heading: str
    records: tuple[Record, ...]


def current(records: Iterable[Record]) -> list[Record]:
    """The newest record of each request: one made with other sources, weights or data than today's stands back."""
    newest: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: (record.started, record.run)):
        newest[record.spec.request] = record
    return list(newest.values())


def groups(track: Track, records: Iterable[Record]) -> list[Group]:
    """The current records of a track, split into groups that may be ranked, each from best to worst."""
    found: defaultdict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in current(records):
        if record.value(track.value) is not None and track.holds(record):
            spec = record.spec
            model = f"model {spec.model}" if spec.model else ""
            budget = f"at most {spec.budget} of MACs" if spec.budget else ""
            n = f"{spec.samples:,} images" if spec.samples else "random images"
            seen = ("counted from shapes",) if spec.task == "structure" else (n, spec.precision, spec.device)
            protocol = f"protocol {spec.protocol} v{spec.protocol_version}"
            key = (protocol, model, budget, *seen, f"by {spec.site}")
            found[tuple(part for part in key if part)].append(record)
    return [Group(" · ".join(key), tuple(track.rank(group))) for key, group in sorted(found.items())]


def _named(record: Record) -> set[str]:
    return {value.name for value in record.values}


def _number(record: Record, name: str) -> float:
    value = record.value(name)
    return value.value if value is not None else float("nan")


NAME = Column("method", "method, variant and what sets the run apart", name_cell, numeric=False)

ACCURACY = (
    NAME,
    Column("left", "tokens after the last reduction, class token included", bare("tokens_left", 0)),
    Column("MMACs", "multiply-accumulates of one image, in millions, by formula", bare("macs", 1, 1e-6)),
    Column("top-1 %", "95 % Wilson interval", ranged("top1", 1, 100)),
    Column("top-5", "share with the label among the five best, in percent", bare("top5", 1, 100)),
    Column("difference", "points from the unreduced model, 95 % interval", signed("top1_difference", 1, 100)),
    Column("p", "McNemar's exact test of that difference", p_value("top1_mcnemar_p")),
)

TRACKS = (
    Track(
        id="reconstruction",
        title="Reconstruction",
        about="Held-out images, encoded and decoded. The error of rFID is that of drawing other images.",
        value="rfid",
        rising=False,
        columns=(
            NAME,
            Column("tokens", "tokens per image", bare("tokens_per_image", 0)),
            Column("bits/px", "bits per pixel of the code as it is stored", bare("bits_per_pixel", 3)),
            Column("rFID", "Fréchet distance from the originals, ± standard error; lower is better", distance("rfid")),
            Column("PSNR dB", "mean over images", bare("psnr", 2)),
            Column("SSIM", "mean over images", bare("ssim", 3)),
            Column("LPIPS", "AlexNet's, mean over images; lower is better", bare("lpips", 3)),
            Column("IS", "Inception score of the reconstructions", bare("inception_score", 1)),
            Column("codes %", "share of the codebook that was seen", bare("codebook_use", 0, 100)),
            Column("entropy", "of the codes, in bits", bare("codebook_entropy", 2)),
        ),
    ),
    Track(
        id="generation",
        title="Generation",
        about="Samples by class against the training images. Class accuracy is a small classifier's opinion.",
        value="gfid",
        rising=False,
        columns=(
            NAME,
            Column(
                "gFID", "Fréchet distance from the training images, ± standard error; lower is best", distance("gfid")
            ),
            Column("gFID, N→∞", "extrapolated to infinitely many samples", distance("gfid_infinite"), spare=True),
            Column("sFID", "the same on spatial features", distance("sfid")),
            Column("IS", "Inception score, ± standard error", distance("inception_score")),
            Column(
                "precision", "share of samples within the reference images' manifold", bare("precision", 3), spare=True
            ),
            Column("recall", "share of reference images within the samples' manifold", bare("recall", 3), spare=True),
            Column("class accuracy %", "95 % interval", ranged("class_accuracy", 1, 100), spare=True),
            Column("steps", "calls of the network for a batch of images", bare("steps", 0), spare=True),
            Column(
                "GMACs",
                "multiply-accumulates of one sample, guidance and decoder included",
                bare("macs", 3, 1e-9),
                spare=True,
            ),
            Column("MACs %", "of the sampler's without reduction", bare("macs_ratio", 1, 100)),
            Column("PSNR dB", "from what the unreduced sampler makes of the same noise", bare("psnr", 2)),
            Column("LPIPS", "the same, AlexNet's; lower is nearer", bare("lpips", 3), spare=True),
            Column("parameters", "of the generator without its tokenizer", parameters_cell, spare=True),
            Column("samples/s", "measures included", sampling_cell, spare=True),
        ),
    ),
    Track(
        id="accuracy",
        title="Accuracy",
        about="Top-1 of a classifier with its tokens reduced, and the difference from it unreduced on the same images.",
        value="top1",
        rising=True,
        columns=ACCURACY,
        holds=lambda record: not record.spec.budget,
    ),
    Track(
        id="equal-macs",
        title="Accuracy at equal cost",
        about="Each method at the dearest setting that fits one budget of multiply-accumulates, its own included."
        " Keep rates are no budget: at the same one, methods cost up to 10 % more or less.",
        value="top1",
        rising=True,
        columns=ACCURACY,
        holds=lambda record: bool(record.spec.budget),
    ),
    Track(
        id="tokenization",
        title="Speed of tokenizers",
        about="Drawn weights and random images; encoding and decoding each by itself, then one after the other."
        " Intervals are 95 %.",
        value="both_images_per_second",
        rising=True,
        columns=(
            NAME,
            Column("parameters", "of encoder and decoder", parameters_cell),
            Column("encode/s", "images per second, at the best batch", bare("encode_images_per_second", 1)),
            Column("decode/s", "images per second, at the best batch", bare("decode_images_per_second", 1)),
            Column("both/s", "encoded, then decoded", ranged("both_images_per_second", 1)),
            Column("compiled/s", "both, through torch.compile", bare("both_compiled_images_per_second", 1)),
            Column("batch", "at which both together are fastest", bare("best_batch", 0)),
            Column("encode ms", "latency at batch 1, median", bare("encode_latency_p50_ms", 1)),
            Column("decode ms", "latency at batch 1, median", bare("decode_latency_p50_ms", 1)),
            Column("memory", "of one call beyond weights and images, GiB", bare("call_memory_bytes", 2, 2.0**-30)),
        ),
    ),
    Track(
        id="sampling",
        title="Speed of generators",
        about="Drawn weights; noise, all steps of a preset, and the decoder. Intervals are 95 %.",
        value="images_per_second",
        rising=True,
        columns=(
            NAME,
            Column("parameters", "of the generator without its tokenizer, in millions", bare("parameters", 1, 1e-6)),
            Column("steps", "calls of the network for a batch of images", bare("steps", 0)),
            Column("GMACs", "multiply-accumulates of one sample, guidance and decoder included", bare("macs", 2, 1e-9)),
            Column("samples/s", "at the best batch", ranged("images_per_second", 2)),
            Column("vs unreduced", "speed-up over the unreduced sampler", ranged("speedup_unreduced", 2, unit="x")),
            Column("compiled/s", "with its blocks compiled", bare("compiled_images_per_second", 2)),
            Column("batch", "the best batch size", bare("best_batch", 0)),
            Column("p50 ms", "latency at batch 1, median", bare("latency_p50_ms", 1)),
            Column("memory", "of one call beyond the weights, GiB", bare("call_memory_bytes", 2, 2.0**-30)),
        ),
        holds=lambda record: record.spec.task == "sampling",
    ),
    Track(
        id="tokenizer-structure",
        title="What tokenizers are made of",
        about="Counted from shapes at official size; latents as float32. By size of code, which is no merit.",
        value="bits_per_image",
        rising=False,
        columns=(
            NAME,
            Column("parameters", "in millions", bare("parameters", 1, 1e-6)),
            Column("tensors", "of the release's checkpoint", bare("state_entries", 0)),
            Column("px", "side of the images", bare("image_size", 0)),
            Column("tokens", "per image, of the whole code", bare("tokens", 0)),
            Column("codebook", "entries of one codebook", bare("codebook_size", 0)),
            Column("bits/px", "bits per pixel of the whole code", bare("bits_per_pixel", 4)),
            Column("ratio", "bits of the 8-bit image by bits of its code", bare("compression_ratio", 1)),
            Column("encode G", "multiply-accumulates of encoding, in billions", bare("encode_macs", 1, 1e-9)),
            Column("decode G", "multiply-accumulates of decoding, in billions", bare("decode_macs", 1, 1e-9)),
        ),
        holds=lambda record: record.spec.task == "structure",
    ),
    Track(
        id="generator-structure",
        title="What samples of generators cost",
        about="Counted from shapes at official size, all steps of a preset with guidance and decoder; each in the"
        " presets of its paper.",
        value="steps",
        rising=False,
        columns=(
            NAME,
            Column("parameters", "of the generator without its tokenizer, in millions", bare("parameters", 1, 1e-6)),
            Column("tensors", "of the release's checkpoint", bare("state_entries", 0)),
            Column("px", "side of the images", bare("image_size", 0)),
            Column("steps", "calls of the network for a batch of images", bare("steps", 0)),
            Column("GMACs", "multiply-accumulates of one sample, in billions", bare("macs", 2, 1e-9)),
        ),
        holds=lambda record: record.spec.task == "structure",
    ),
    Track(
        id="classifier-structure",
        title="What classifiers and token reduction cost",
        about="Multiply-accumulates by the formula that papers print as GFLOPs, counted from shapes at official size.",
        value="macs",
        rising=False,
        columns=(
            NAME,
            Column("parameters", "in millions", bare("parameters", 2, 1e-6)),
            Column("px", "side of the images", bare("image_size", 0)),
            Column("left", "tokens after the last block, class token included", bare("tokens_left", 0)),
            Column("GMACs", "of the model, by the formula", bare("macs", 3, 1e-9)),
            Column("own", "of what the method computes beside the model, in millions", bare("macs_method", 1, 1e-6)),
            Column("%", "of the unreduced model's", bare("macs_ratio", 1, 100)),
        ),
        holds=lambda record: record.spec.task == "structure" and not {"bits_per_image", "steps"} & _named(record),
    ),
    Track(
        id="throughput",
        title="Throughput",
        about="Timed in turns with the unreduced model in one process, ranked by that ratio: it holds where a machine's"
        " speed does not. Intervals are 95 %.",
        value="speedup_best",
        rising=True,
        columns=(
            NAME,
            Column("MACs %", "of the unreduced model's", bare("macs_ratio", 0, 100)),
            Column("vs best", "speed-up over the fastest unreduced baseline", ranged("speedup_best", 2, unit="x")),
            Column("vs eager", "speed-up over the unreduced model with eager attention", bare("speedup_eager", 2)),
            Column("images/s", "at the best batch size", bare("images_per_second", 0)),
            Column("batch", "the best batch size", bare("best_batch", 0)),
            Column("p50 ms", "latency at batch 1, median", bare("latency_p50_ms", 2)),
            Column("p99 ms", "latency at batch 1, 99th percentile", bare("latency_p99_ms", 2)),
        ),
    ),
)
