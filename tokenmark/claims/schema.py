"""A claim: one number that a paper or its release prints, with everything that its source says of how it was measured.

Claims are data, one TOML file per paper in `results/claims/`. What the source does not say is `unstated`.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pydantic
from pydantic import JsonValue

from tokenmark.claims.quantities import AXES, QUANTITIES, SCALES, Quantity, half_digit, number

UNSTATED = "unstated"
Unstated = Literal["unstated"]
Kebab = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Words = Annotated[str, pydantic.StringConstraints(min_length=1, strip_whitespace=True)]
Count = Annotated[int, pydantic.Field(ge=1)]

RATIO_UNITS: dict[str, Callable[[float], float]] = {
    "x": lambda ratio: ratio,
    "x less": lambda ratio: 1.0 / ratio,
    "%": lambda ratio: 100.0 * ratio,
    "% more": lambda ratio: 100.0 * (ratio - 1.0),
    "% less": lambda ratio: 100.0 * (1.0 - ratio),
}
"""How a ratio to a baseline may be printed, and what is printed of the ratio method / baseline."""


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class Subject(_Strict):
    """What was measured: a method in one configuration, named as Tokenmark names it where it is implemented here."""

    method: str | None = None
    """Id of a method; None where it is not implemented."""
    variant: str | None = None
    """The method's own size, or fine-tuned checkpoint."""
    model: str | None = None
    """The classifier whose tokens are reduced (timm's name; with its tag where the weights matter)."""
    settings: dict[str, JsonValue] = {}
    """The method's settings, exactly those that a suite would give."""
    tokens: Count | None = None
    """The length of a variable-length code; None is the whole code."""
    preset: str | None = None
    """The sampler's named settings, of a generator."""


class Claim(_Strict):
    """One printed number."""

    id: Kebab
    """Unique in its file."""
    about: Words
    """What it is of, in the paper's words: `DeiT-S, r = 13`."""
    quantity: str
    value: str
    """The number exactly as printed, so that its last digit is known: `4.60` is not `4.6`."""
    upper: str | None = None
    """The upper end, of a range."""
    unit: str = ""
    kind: Literal["absolute", "difference", "ratio", "iso-accuracy"] = "absolute"
    """Itself; its difference from, or ratio to, the baseline's; the ratio of the cheapest setting as good as it."""
    bound: Literal["exact", "about", "at-least", "at-most", "range"] = "exact"
    """`about`: the source says nearly or approximately; `at-least`, `at-most`: it gives a bound."""
    subject: Subject = Subject()
    baseline: Subject | None = None
    baseline_name: str | None = None
    """The baseline in the paper's words."""
    protocol: str | None = None
    """A protocol of Tokenmark's, or in words what else was used."""
    data: str | None = None
    """Data set and split: `imagenet-256/val`."""
    samples: Count | Unstated | None = None
    resolution: Count | Unstated | None = None
    precision: str | None = None
    selection: str | None = None
    """How one number was chosen of several: `minimum over 3 seeds`, `single run`."""
    device: str | None = None
    batch: Count | Literal["unstated", "largest"] | None = None
    attention: str | None = None
    """The attention kernel of the baseline: `eager`, `fused`."""
    printed: Words
    """Where it stands: `table 2`, `README.md:61-121 at af95e4b`."""
    origin: Literal["paper", "abstract", "readme", "code", "log", "thread", "secondary"]
    """What kind of place that is. `secondary`: read in notes about the source, not in the source itself."""
    incomparable: str | None = None
    """Why no record of Tokenmark's can stand beside it, if none can."""
    note: str | None = None
    """What a reader should know of it, without judging it: verdicts are computed."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _known_quantity(cls, raw: Any) -> Any:
        name = raw.get("quantity") if isinstance(raw, dict) else None
        if isinstance(name, str) and name not in QUANTITIES:
            raise ValueError(f"unknown quantity '{name}'; there are {', '.join(QUANTITIES)}")
        return raw

    @pydantic.model_validator(mode="after")
    def _whole(self) -> "Claim":
        for text in (self.value, self.upper):
            if text is not None:
                number(text)
        units = RATIO_UNITS if self.kind in {"ratio", "iso-accuracy"} else SCALES
        if self.unit not in units and not self.incomparable:
            raise ValueError(f"unit '{self.unit}' of kind {self.kind}: write one of {', '.join(map(repr, units))}")
        if (self.bound == "range") != (self.upper is not None):
            raise ValueError("a range has an upper end, and nothing else has one")
        if self.kind != "absolute" and self.baseline is None and not self.incomparable and self.subject.method:
            raise ValueError(f"a {self.kind} needs a baseline: name its method and model, or say why incomparable")
        for axis in AXES[self.about_quantity.family]:
            if getattr(self, axis) is None:
                raise ValueError(f"{axis} is missing: write what the source says of it, or '{UNSTATED}'")
        if self.about_quantity.name == "other" and not self.incomparable:
            raise ValueError("a quantity that Tokenmark does not measure needs 'incomparable': say why")
        return self

    @property
    def about_quantity(self) -> Quantity:
        """What is measured."""
        return QUANTITIES[self.quantity]

    @property
    def half_digit(self) -> float:
        """Half of the last printed digit, in the claim's unit."""
        return half_digit(self.value)


class Paper(_Strict):
    """One paper, and the numbers that it or its release prints."""

    version: Literal[1]
    title: Words
    url: Words
    year: Count | Unstated = "unstated"
    name: Words
    """What the field calls it: `TiTok`."""
    claims: Annotated[list[Claim], pydantic.Field(min_length=1)]

    @pydantic.model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, raw: Any) -> Any:
        """Put the file's `defaults` into every claim that does not say otherwise, as far as its family asks."""
        if not isinstance(raw, dict) or not isinstance(raw.get("claims"), list):
            return raw
        raw = dict(raw)
        defaults = raw.pop("defaults", {})
        if isinstance(defaults, dict) and defaults.keys() - Claim.model_fields.keys():
            raise ValueError(
                f"unknown key in defaults: {', '.join(sorted(defaults.keys() - Claim.model_fields.keys()))}"
            )
        raw["claims"] = [_defaulted(claim, defaults) for claim in raw["claims"]]
        return raw

    @pydantic.model_validator(mode="after")
    def _unique(self) -> "Paper":
        ids = [claim.id for claim in self.claims]
        twice = sorted({each for each in ids if ids.count(each) > 1})
        if twice:
            raise ValueError(f"two claims are called {', '.join(twice)}: give each its own id")
        return self


def _defaulted(claim: Any, defaults: Any) -> Any:
    if not isinstance(claim, dict) or not isinstance(defaults, dict):
        return claim
    quantity = QUANTITIES.get(str(claim.get("quantity", defaults.get("quantity"))))
    everywhere = {key: value for key, value in defaults.items() if key not in _ALL_AXES}
    asked = {key: defaults[key] for key in (AXES[quantity.family] if quantity else ()) if key in defaults}
    return {**everywhere, **asked, **claim}


_ALL_AXES = {axis for axes in AXES.values() for axis in axes}
