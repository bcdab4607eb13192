"""The sum behind a cost, as one writes it down to check it by hand."""

from typing import Any, cast

from tokenmark.claims.judged import Judged
from tokenmark.records import Record


def of(judged: Judged) -> str:
    """How the measured cost comes about; empty where it is no cost by the formula."""
    if judged.claim.quantity != "macs":
        return ""
    return "; ".join(filter(None, (macs(record) for record in judged.records)))


def macs(record: Record) -> str:
    """`embed + a sum N + b sum N^2 + c sum N' + head = total`, N tokens at attention and N' at the MLP of a block.

    Empty for records that hold no schedule: their multiply-accumulates were counted operation by operation.
    """
    cost, schedule = cast("Any", record.details.get("cost")), cast("Any", record.details.get("schedule"))
    total = record.value("macs")
    if not cost or not schedule or total is None or len(cost["blocks"]) != 1:
        return ""
    block = cost["blocks"][0]
    attention, mlp = [row[0] for row in schedule], [row[1] for row in schedule]
    pairs = sum(n * n for n in attention)
    terms = [
        f"{cost['embed']:,} (patches)",
        f"{block['linear']:,} x {sum(attention):,}",
        f"{block['pairs']:,} x {pairs:,}",
        f"{block['mlp']:,} x {sum(mlp):,}",
        f"{cost['head'] + cost['head_per_token'] * mlp[-1]:,} (head)",
    ]
    own = record.value("macs_method")
    extra = f", and {own.value:,.0f} of the method's own" if own is not None and own.value else ""
    sums = f"N = {_list(attention)}, N' = {_list(mlp)}"
    return f"{' + '.join(terms)} = {total.value:,.0f} MACs{extra}, with {sums}"


def _list(counts: list[int]) -> str:
    """Counts of all blocks, runs of equal ones shortened."""
    parts: list[str] = []
    start = 0
    for at in range(1, len(counts) + 1):
        if at == len(counts) or counts[at] != counts[start]:
            parts.append(f"{counts[start]}" if at - start == 1 else f"{counts[start]} ({at - start} times)")
            start = at
    return ", ".join(parts)
