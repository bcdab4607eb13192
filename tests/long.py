"""What takes long, and is left out of `nox -s tests`: `nox -s tests-long` runs it with everything else."""

import os

import pytest

takes_long = pytest.mark.skipif("TOKENMARK_LONG_TESTS" not in os.environ, reason="takes long: nox -s tests-long")
