"""The report of a run: first what a busy person needs, then the tables."""

from __future__ import annotations

from typing import cast

from mlopt.records.run import RunRecord
from mlopt.report.blocks import Block, Code, Document, Drawings, Lines, Properties, Table
from mlopt.report.run_charts import bars, waterfall
from mlopt.report.run_tables import artifact_table, environment_rows, gains_table, operators_table
from mlopt.report.run_words import headlines, why_not_faster

WHY, NOT_MEASURED, ARTIFACTS, ENVIRONMENT = (
    "Why not smaller or faster",
    "Not measured",
    "Artifacts",
    "Environment",
)
"""Headings by which others find a block."""


def run_document(record: RunRecord) -> Document:
    """The document of a run."""
    import yaml

    columns, rows = artifact_table(record)
    passes = tuple((e.name, e.status, f"{e.seconds:.1f} s", e.summary or e.reason) for e in record.passes)
    blocks: list[Block] = [
        Table(ARTIFACTS, columns, rows),
        Drawings("", (*bars(record), *waterfall(record))),
        Lines(WHY, tuple(why_not_faster(record))),
        Lines(NOT_MEASURED, tuple(dict.fromkeys(record.not_measured))),
        gains_table(record),
        Table("Passes", ("pass", "status", "time", "what"), passes, left=4),
        operators_table(record),
        Properties(ENVIRONMENT, tuple(environment_rows(record))),
        Code("Recipe", "recipe.yaml", yaml.safe_dump(record.recipe, sort_keys=False)),
    ]
    return Document.of(
        f"mlopt: {model_of(record)}", record.status, record.status == "ok", headlines(record), blocks
    )


def model_of(record: RunRecord) -> str:
    """What the recipe calls the model."""
    model = record.recipe.get("model")
    return str(cast(dict[str, object], model).get("path")) if isinstance(model, dict) else "a model"
