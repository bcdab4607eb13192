"""A suite made from a command line: cost and throughput of timm models under protocol `throughput`."""

import json
from collections.abc import Iterable

import pydantic
from pydantic import JsonValue

from tokenmark import budgets, suites
from tokenmark.backbones import RANDOM
from tokenmark.errors import SuiteError
from tokenmark.suites import Suite

NAME = "throughput"
MEASURES = ["cost", "throughput"]


def suite(
    models: str,
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
    """Every method on every model; lists are separated by commas, `given` holds `method.setting=value`.

    Raises:
        UnknownNameError: no such model or method.
        SuiteError: a list without names, a batch that is no number, a setting that is not of that form or not used.
    """
    chosen = list(dict.fromkeys(name.removesuffix(RANDOM) + RANDOM for name in _listed(models, "models")))
    named = _listed(methods, "methods")
    settings = _settings(given, named)
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


def _listed(text: str, what: str) -> list[str]:
    """Names between commas, each once, in their order."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise SuiteError(f"--{what} is empty: give names separated by commas")
    return names


def _number(text: str) -> int:
    if not text.isdecimal():
        raise SuiteError(f"--batches: '{text}' is not a number of images")
    return int(text)


def _settings(given: Iterable[str], methods: list[str]) -> dict[str, dict[str, JsonValue]]:
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
