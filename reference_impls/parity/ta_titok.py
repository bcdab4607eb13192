"""TA-TiTok beside bytedance/1d-tokenizer."""

from collections.abc import Mapping
from typing import Any

from reference_impls.parity.titok import outputs
from reference_impls.tokenizers.ta_titok import TaTiTok, release_arguments
from tokenmark.contracts import Parity

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> TaTiTok:
    """The module that the release's configuration describes."""
    return TaTiTok(**release_arguments(config))


PARITY = Parity(build=build, outputs=outputs)
