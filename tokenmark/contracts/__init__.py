"""What a method offers to be measured. Everything that a method file imports from the engine is here.

Images are float32 `(B, 3, H, W)` in `[0, 1]` everywhere; a method's own normalisation is its own business.
"""

from tokenmark.contracts.methods import (
    ClassifierMethod,
    DiffusionReducerMethod,
    GeneratorMethod,
    Knob,
    Method,
    NoSettings,
    Preset,
    ReducerMethod,
    TokenizerMethod,
)
from tokenmark.contracts.parity import Parity, ParityCase
from tokenmark.contracts.reduction import BlockCost, BlockTokens, ReducedModel, VitCost
from tokenmark.contracts.releases import Layout, Paper, Part, Release, Variant
from tokenmark.contracts.tokens import Generator, Prompts, Tokenizer, TokenizerInfo, Tokens
from tokenmark.errors import BudgetError, MethodError, UnsupportedBackboneError

__all__ = [
    "BlockCost",
    "BlockTokens",
    "BudgetError",
    "ClassifierMethod",
    "DiffusionReducerMethod",
    "Generator",
    "GeneratorMethod",
    "Knob",
    "Layout",
    "Method",
    "MethodError",
    "NoSettings",
    "Paper",
    "Parity",
    "ParityCase",
    "Part",
    "Preset",
    "Prompts",
    "ReducedModel",
    "ReducerMethod",
    "Release",
    "Tokenizer",
    "TokenizerInfo",
    "TokenizerMethod",
    "Tokens",
    "UnsupportedBackboneError",
    "Variant",
    "VitCost",
]
