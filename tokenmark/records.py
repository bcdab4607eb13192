"""What a run found: a sealed record, the only truth about it."""

import json
from typing import Literal

import pydantic
from pydantic import JsonValue

from tokenmark.errors import RecordError
from tokenmark.files import canonical_json, sha256_text
from tokenmark.spec import RunSpec, Sha256

SCHEMA_VERSION = 2
Z95 = 1.96
"""Standard errors on either side of a value that 95 % of repetitions lie within."""


class Value(pydantic.BaseModel):
    """One measured number with what is known of its uncertainty."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    value: float
    n: int
    """How many images (or timed rounds) it was measured on."""
    se: float | None = None
    """Standard error."""
    interval: tuple[float, float] | None = None
    """95 % interval."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval, its own or that of its standard error; None where no error is known."""
        if self.interval is not None:
            return self.interval
        return (self.value - Z95 * self.se, self.value + Z95 * self.se) if self.se is not None else None


class Picture(pydantic.BaseModel):
    """A picture that lies beside the record."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: Sha256
    caption: str


class Environment(pydantic.BaseModel):
    """The machine and the software that measured."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    commit: str | None
    """Commit of the package's own source; None where it is not known."""
    dirty: bool | None
    """Whether tracked files differed from that commit."""
    lock: str | None
    """Name of the hash-pinned requirements in force; None where the environment was not pinned."""
    lock_sha256: Sha256 | None
    python: str
    platform: str
    device: str
    device_name: str
    cores: int
    threads: int
    memory_bytes: int
    driver: str | None
    cuda: str | None
    libraries: dict[str, str]
    tf32: bool
    attention_backends: tuple[str, ...]


class Record(pydantic.BaseModel):
    """One run's specification, values and circumstances. Written once, never edited; `seal` shows if it was."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[2] = 2
    run: Sha256
    spec: RunSpec
    values: tuple[Value, ...]
    details: dict[str, JsonValue]
    """What a task has to say beyond its values: token counts, sweeps, sizes."""
    environment: Environment
    started: str
    """UTC, ISO 8601."""
    durations: dict[str, float]
    """Seconds of each phase."""
    peak_memory_bytes: int
    warnings: tuple[str, ...]
    pictures: dict[str, Picture] = {}
    seal: str = ""

    def value(self, name: str) -> Value | None:
        """The value called `name`, or None."""
        return next((value for value in self.values if value.name == name), None)

    def sealed(self) -> "Record":
        """The same record with its seal."""
        return self.model_copy(update={"seal": self._seal()})

    def _seal(self) -> str:
        return sha256_text(canonical_json(self.model_dump(mode="json", exclude={"seal"})))

    def to_json(self) -> bytes:
        """The bytes of the record's file."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode()


def parse(data: bytes, name: str) -> Record:
    """Read a record and check that nobody has changed it.

    Raises:
        RecordError: it is truncated, of another schema, or was altered.
    """
    again = "restore it from version control, or delete it to measure again"
    try:
        raw = json.loads(data)
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if version != SCHEMA_VERSION:
            raise RecordError(f"record {name} has schema {version}, this Tokenmark reads {SCHEMA_VERSION}: {again}")
        record = Record.model_validate_json(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"record {name} is not whole JSON (truncated?): {again}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"record {name} is not a record: {place}: {first['msg']}; {again}") from error
    if record.run != record.spec.run:
        raise RecordError(f"record {name} was altered: its run is not the hash of its specification; {again}")
    if record.seal != record._seal():
        raise RecordError(f"record {name} was altered: its seal does not match its content; {again}")
    return record
