"""A suite made from a command line: speed of timm models and of tokenizers under protocol `throughput`."""

import json
from collections.abc import Iterable

import pydantic
from pydantic import JsonValue

from tokenmark import backbones, budgets, registry, suites
from tokenmark.contracts import TokenizerMethod
from tokenmark.errors import SuiteError
from tokenmark.suites import Suite

NAME = "throughput"
MEASURES = ["cost", "throughput"]


def suite(
    models: str,
    tokenizers: str,
    methods: str,
    given: Iterable[str],
    batches: str,
    precision: str,
    seed: int,
    min_seconds: float,
    min_rounds: int,
    *,
    compiled: bool,
) -> Suite:
    """Every method on every model, and every tokenizer; lists are separated by commas.

    `given` holds `method.setting=value`; a tokenizer is `method/variant`, or a method for all of its sizes.

    Raises:
        UnknownNameError: no such model, method or variant.
        SuiteError: a list without names, a batch that is no number, a setting that is not of that form or not used.
    """
    if not models and not tokenizers:
        raise SuiteError("nothing to time: give --models, --tokenizers, or both")
    asked = _listed(models, "models") if models else []
    chosen = list(dict.fromkeys(map(_drawn, asked)))
    named = _listed(methods, "methods")
    settings = settings_of(given, named)
    jobs = [
        {
            "task": "classification",
            "method": method,
            "model": model,
            "measures": MEASURES,
            "precision": precision,
            "settings": {**budgets.usual(method, model), **settings.get(method, {})},
        }
        for model in chosen
        for method in named
    ]
    jobs += [
        {"task": "tokenization", "method": method, "variant": variant, "precision": precision}
        for method, variant in _tokenizers(tokenizers)
    ]
    timing = {
        "batches": [_number(text) for text in _listed(batches, "batches")],
        "min_seconds": min_seconds,
        "min_rounds": min_rounds,
        "compiled": compiled,
    }
    facts = {"version": 1, "title": "Throughput: random weights, random images", "protocol": NAME, "batch_size": 1}
    try:
        return Suite.model_validate({**facts, "seed": seed, "timing": timing, "jobs": jobs})
    except pydantic.ValidationError as error:
        raise SuiteError(suites.first_line(error)) from error


def _drawn(name: str) -> str:
    """The name of a model with drawn weights.

    Raises:
        UnknownNameError: there is no such model.
        SuiteError: it is named with weights that somebody trained, which speed alone does not read.
    """
    found = backbones.drawn(name)
    if not backbones.get(found).random:
        raise SuiteError(f"{name} has trained weights, and speed alone reads none: name the architecture without a tag")
    return found


def _listed(text: str, what: str) -> list[str]:
    """Names between commas, each once, in their order."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise SuiteError(f"--{what} is empty: give names separated by commas")
    return names


def _tokenizers(text: str) -> list[tuple[str, str]]:
    """Methods and variants; of a method that is named alone all its sizes, but for the repository's own."""
    found: list[tuple[str, str]] = []
    for name in _listed(text, "tokenizers") if text else []:
        method, slash, variant = name.partition("/")
        known = registry.get_as(TokenizerMethod, method).variants
        found += [(method, variant)] if slash else [(method, size) for size, each in known.items() if not each.weights]
    return list(dict.fromkeys(found))


def _number(text: str) -> int:
    if not text.isdecimal():
        raise SuiteError(f"--batches: '{text}' is not a number of images")
    return int(text)


def settings_of(given: Iterable[str], methods: list[str]) -> dict[str, dict[str, JsonValue]]:
    """Settings by method; a value is read as JSON, and as text where it is none."""
    found: dict[str, dict[str, JsonValue]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        method, dot, setting = name.strip().partition(".")
        if not (equals and dot and setting):
            raise SuiteError(f"--set {text}: write METHOD.SETTING=VALUE, as in tome.r=8")
        if method not in methods:
            raise SuiteError(f"--set {text}: {method} is not among the methods to measure ({', '.join(methods)})")
        found.setdefault(method, {})[setting] = _value(value.strip())
    return found


def _value(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value
