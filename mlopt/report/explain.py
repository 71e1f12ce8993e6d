"""Why something is not faster, from the profile of its operators."""

from __future__ import annotations

from mlopt.records.bench import BenchRow

NOTABLE = 0.10
"""Less than a tenth of the time explains nothing."""
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast")
LAYOUT = ("ReorderInput", "ReorderOutput", "Transpose", "aten::contiguous", "aten::clone", "aten::copy_")


def why_from_operators(row: BenchRow, precision: str | None) -> list[str]:
    """Sentences on one bench row that carries a profile: islands of conversion, nodes
    on another provider, changes of layout, another precision than the artifact was made
    for. `precision`: what it was made for; None when unknown."""
    operators = row.operators
    total = sum(op.seconds for op in operators)
    if not total:
        return []
    name, out = row.artifact, []
    for kinds, sentence in (
        (
            CONVERSIONS,
            "converting between precisions ({names}): islands that were not fused into one integer kernel",
        ),
        (
            LAYOUT,
            (
                "changing the layout of tensors ({names}): widths that are no multiple of the vector length,"
                " or operators without a kernel for it"
            ),
        ),
    ):
        found = [op for op in operators if op.kind in kinds]
        share = sum(op.seconds for op in found) / total
        if share >= NOTABLE:
            names = ", ".join(dict.fromkeys(op.kind for op in found))
            out.append(f"{name} spends {share:.0%} of its profiled time {sentence.format(names=names)}.")
    wanted = (row.provider or "").removesuffix("ExecutionProvider")
    elsewhere = [op for op in operators if op.provider not in (wanted, "", "torch", None)]
    if elsewhere:
        share = sum(op.seconds for op in elsewhere) / total
        names = ", ".join(op.name for op in elsewhere[:3])
        count, place = len(elsewhere), elsewhere[0].provider
        out.append(
            f"{name}: {count} operators run on {place} instead of {wanted} ({names}; {share:.0%} of the"
            " time)."
        )
    if precision in ("int8", "fp16", "bf16") and row.precision is not None and row.precision != precision:
        out.append(f"{name} was made for {precision}, and most of its time is spent in {row.precision}.")
    return out
