"""What a run is: a frozen specification whose hash names it."""

from typing import Annotated, Literal

import pydantic
from pydantic import JsonValue

from tokenmark.files import canonical_json, sha256_text

TaskName = Literal["reconstruction", "generation", "classification", "tokenization", "sampling", "structure"]
Precision = Literal["float32", "bfloat16"]
LONG = 6
"""Numbers of a setting that are told in a title."""
MADE_OF = {"implementation", "weights", "data", "protocol_sha256", "tokenmark"}
"""What of a specification says of what a run was made, and not what was asked for."""
WHERE = {"device", "site"}
Sha256 = Annotated[str, pydantic.StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class RunSpec(pydantic.BaseModel):
    """Everything that can change a number. Two runs with one specification give one result.

    `device` and `site` say where: the same experiment on another machine is another run, so that nobody's
    records overwrite anybody's.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    suite: str
    task: TaskName
    method: str
    variant: str | None = None
    """The method's size."""
    model: str | None = None
    """The classifier whose tokens were reduced."""
    settings: dict[str, JsonValue] = {}
    budget: str = ""
    """What the run may cost, where the settings were found to fit it: `3.0G`, or `60%` of the unreduced model."""
    tokens: int | None = None
    """The length asked of a variable-length code; None is the whole code."""
    implementation: Sha256
    """Hash of the method's source and of what it imports from its own package."""
    weights: dict[str, Sha256] = {}
    data: dict[str, Sha256]
    """Hash of the manifest of each split that is read."""
    protocol: str
    protocol_version: int
    protocol_sha256: Sha256
    measures: tuple[str, ...]
    timing: dict[str, JsonValue] = {}
    """How throughput is timed; empty where it is not."""
    samples: int
    batch_size: int
    precision: Precision = "float32"
    seed: int
    tokenmark: str
    """Version of this package."""
    device: str
    site: str

    @property
    def run(self) -> str:
        """The name of this run: SHA-256 of its canonical JSON."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))

    @property
    def experiment(self) -> str:
        """The same for everybody who runs this experiment, wherever: the hash without device and site."""
        return sha256_text(canonical_json(self.model_dump(mode="json", exclude=WHERE)))

    @property
    def request(self) -> str:
        """What was asked for and where, whatever it was made of: the same after sources, weights or data changed."""
        return sha256_text(canonical_json(self.model_dump(mode="json", exclude=MADE_OF)))

    @property
    def question(self) -> str:
        """What was asked for, whatever it was made of and wherever: `request` without device and site."""
        return sha256_text(canonical_json(self.model_dump(mode="json", exclude=MADE_OF | WHERE)))

    @property
    def title(self) -> str:
        """The run in a few words: method, variant or classifier, and what sets it apart."""
        of = self.variant or self.model
        name = f"{self.method}/{of}" if of else self.method
        parts = [f"{key}={_brief(value)}" for key, value in self.settings.items()]
        if self.tokens is not None:
            parts.append(f"tokens={self.tokens}")
        return " ".join([name, *parts])


def _brief(value: JsonValue) -> str:
    """A setting's value, of a long list its ends."""
    if not isinstance(value, list):
        return str(value)
    shown = [_brief(item) for item in value]
    return "-".join(shown if len(shown) <= LONG else [*shown[:2], "...", shown[-1]])
