"""What a person runs. Every session makes its own environment from hash-pinned requirements."""

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "typecheck"]
nox.needs_version = ">=2024.10.9"

LOCKS = Path("locks")
PROJECT = ("pyproject.toml", "locks/bench.in")
KINDS = {
    "bench": PROJECT,
    "tests": (*PROJECT, "locks/tests.in"),
    "typecheck": (*PROJECT, "locks/typecheck.in"),
    "lint": ("locks/lint.in",),
    "ui": ("locks/ui.in",),
}
"""Kinds of environment and what is wanted in each; `locks/<kind>.txt` is what is installed."""
IMAGENET = (
    *("reconstruction-256", "token-curve", "generation-256", "generation-512"),
    *("classification", "zero-shot", "imagenet-throughput"),
)
"""Suites of `bench-imagenet`."""
BENCHMARKS = ("measures", "reading", "engine", "tokenizers", "generators")
"""Parts of `bench-measures`."""


def install(session: nox.Session, kind: str, *, project: bool = True) -> dict[str, str]:
    """Install a pinned environment, and this project into it; gives the variables that records need."""
    lock = LOCKS / f"{kind}.txt"
    session.run_install("uv", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock), external=True)
    if project:
        session.run_install(
            "uv", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", ".", external=True
        )
    return {"TOKENMARK_LOCK": str(lock.resolve()), "MLFLOW_DISABLE_TELEMETRY": "true"}


@nox.session(name="bench-mini")
def bench_mini(session: nox.Session) -> None:
    """The main job: measure everything on the embedded data, then show tables and write the page."""
    env = install(session, "bench")
    session.run("tokenmark", "run", "mini", *session.posargs, env=env)


@nox.session(name="bench-imagenet")
def bench_imagenet(session: nox.Session) -> None:
    """Measure on ImageNet: `-- --data PATH [--methods NAMES] [--weights PATH|hub] [--limit N] [--device NAME]`."""
    env = install(session, "bench")
    session.run("tokenmark", "run", *IMAGENET, *session.posargs, env=env)


@nox.session
def structure(session: nox.Session) -> None:
    """Count what every method is made of, at official size: minutes on a processor, no weights, no data."""
    env = install(session, "bench")
    session.run("tokenmark", "run", "structure", *session.posargs, env=env)


@nox.session
def verify(session: nox.Session) -> None:
    """Put what papers print beside the records: `-- --paper titok`, `-- --help`."""
    env = install(session, "bench")
    session.run("tokenmark", "verify", *session.posargs, env=env)


@nox.session(name="bench-measures")
def bench_measures(session: nox.Session) -> None:
    """Measure Tokenmark itself, into docs/measured.md; `-- PART [--help]` for one of `BENCHMARKS` alone."""
    env = install(session, "bench")
    parts, options = (session.posargs[:1], session.posargs[1:]) if session.posargs else (BENCHMARKS, [])
    for part in parts:
        session.run("python", "-m", f"benchmarks.{part}", *options, env=env)


@nox.session(name="bench-reduction")
def bench_reduction(session: nox.Session) -> None:
    """Measure how much of their promised speed-up token reducers keep, into docs/measured.md; `-- --help`."""
    env = install(session, "bench")
    session.run("python", "-m", "benchmarks.reduction", *session.posargs, env=env)


@nox.session(name="bench-throughput")
def bench_throughput(session: nox.Session) -> None:
    """Speed without data or weights: every tokenizer, generator and ImageNet's classifiers; hours without a GPU.

    `-- --models deit_small_patch16_224 --methods tome` or `-- --tokenizers titok/s128` times those alone.
    """
    env = install(session, "bench")
    everything = ("run", "tokenizer-throughput", "generator-throughput", "imagenet-throughput")
    session.run("tokenmark", *(("throughput", *session.posargs) if session.posargs else everything), env=env)


@nox.session(name="train-mini")
def train_mini(session: nox.Session) -> None:
    """Train the small weights that the repository holds; resumes. `-- NAME --again` trains one anew."""
    env = install(session, "bench")
    session.run("python", "-m", "recipes.mini", *session.posargs, env=env)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    env = install(session, "tests")
    env["OMP_NUM_THREADS"] = "1"  # two workers that each want every core hold each other up
    env["PYTHONDONTWRITEBYTECODE"] = ""  # where it is set every process that a test starts would compile torch anew
    # the end-to-end tests, the longest, come early: in the order of names, not of counts
    usual = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    session.run("python", "-m", "pytest", *(session.posargs or usual), env=env)


@nox.session(name="tests-long")
def tests_long(session: nox.Session) -> None:
    """Run all tests, also those that `tests` leaves out for their length; arguments go to pytest."""
    env = install(session, "tests") | {"TOKENMARK_LONG_TESTS": "1", "OMP_NUM_THREADS": "1"}
    usual = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    session.run("python", "-m", "pytest", *(session.posargs or usual), env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    install(session, "lint", project=False)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session, "typecheck")
    session.run("mypy")


@nox.session
def leaderboard(session: nox.Session) -> None:
    """Write the leaderboard, a static site, from the records and claims in results/."""
    env = install(session, "bench")
    session.run("tokenmark", "leaderboard", *session.posargs, env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Write what README.md and docs/weights.md say of today's records and weights."""
    env = install(session, "bench")
    session.run("python", "-m", "recipes.docs", *session.posargs, env=env)


@nox.session
def movement(session: nox.Session) -> None:
    """Measure how far images move under each protocol, for docs/protocols.md: `-- --weights PATH` of Inception."""
    env = install(session, "bench")
    session.run("python", "-m", "recipes.movement", *session.posargs, env=env)


@nox.session
def ui(session: nox.Session) -> None:
    """Open MLflow's own page on the run store (http://127.0.0.1:5000); ctrl-C ends it."""
    env = install(session, "ui", project=False)
    store = Path("results/mlflow.db").resolve()
    port = session.posargs or ["--port", "5000"]
    command = ("mlflow", "ui", "--backend-store-uri", f"sqlite:///{store}", "--host", "127.0.0.1", "--workers", "1")
    session.run(*command, *port, env=env)


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Make the pins anew: the newest releases that fit, with hashes, for every platform."""
    if shutil.which("uv") is None:
        session.error("uv is not installed: python -m pip install uv")
    for kind, wanted in KINDS.items():
        session.run(
            *("uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", "3.11"),
            *("--no-emit-index-url", "--no-annotate", "--custom-compile-command", "nox -s lock", *session.posargs),
            *(*wanted, "-o", f"{LOCKS}/{kind}.txt"),
            external=True,
        )


@nox.session
def tokenmark(session: nox.Session) -> None:
    """Run the command line in the pinned environment: `nox -s tokenmark -- list`."""
    env = install(session, "bench")
    session.run("tokenmark", *(session.posargs or ["--help"]), env=env)
