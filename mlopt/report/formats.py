"""A verdict in the words of CI systems: JUnit, GitHub, GitLab."""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

from mlopt.errors import UsageError
from mlopt.records.gate import GateRecord
from mlopt.report.verdict_words import headline, row_sentence

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(value: str) -> str:
    """What XML 1.0 can hold."""
    return _NOT_XML.sub("\ufffd", value)


def junit(record: GateRecord) -> str:
    """JUnit XML: one test case a row. FAIL, ANOMALOUS and INVALID are failures;
    INCONCLUSIVE and INCOMPARABLE are errors, since nothing was shown."""
    suite = ElementTree.Element("testsuite", name="mlopt gate", timestamp=record.created or "")
    counts = {"tests": 0, "failures": 0, "errors": 0}
    cases = [(row.title, row.verdict, row_sentence(row), row.seconds) for row in record.rows]
    if record.reason is not None:
        cases.append(("gate", record.verdict, record.reason, 0.0))
    for name, verdict, sentence, seconds in cases:
        case = ElementTree.SubElement(
            suite, "testcase", classname="mlopt.gate", name=_text(name), time=f"{seconds:.3f}"
        )
        counts["tests"] += 1
        if verdict in ("FAIL", "ANOMALOUS", "INVALID"):
            counts["failures"] += 1
            ElementTree.SubElement(case, "failure", type=verdict, message=_text(f"{verdict}: {sentence}"))
        elif verdict != "PASS":
            counts["errors"] += 1
            ElementTree.SubElement(case, "error", type=verdict, message=_text(f"{verdict}: {sentence}"))
        else:
            ElementTree.SubElement(case, "system-out").text = _text(sentence)
    for key, value in counts.items():
        suite.set(key, str(value))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _command(kind: str, title: str, message: str) -> str:
    """A workflow command, its special characters escaped: a name must not start a
    command of its own."""
    for raw, escaped in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        title, message = title.replace(raw, escaped), message.replace(raw, escaped)
    return f"::{kind} title={title.replace(':', '%3A').replace(',', '%2C')}::{message}"


def github_annotations(record: GateRecord) -> str:
    """GitHub annotations: an error for every row that is no, a warning for what is
    open, a notice for the whole."""
    lines = []
    for row in record.rows:
        if row.verdict != "PASS":
            kind = "error" if row.verdict in ("FAIL", "ANOMALOUS", "INVALID") else "warning"
            lines.append(_command(kind, f"{row.verdict} {row.title}", row_sentence(row)))
    kind = "notice" if record.verdict == "PASS" else "error" if record.exit_code == 1 else "warning"
    lines.append(_command(kind, f"mlopt gate: {record.verdict}", headline(record)))
    return "\n".join(lines)


def github(record: GateRecord, summary: str) -> str:
    """Annotations for the log; `summary` (Markdown) is appended to the step summary
    when there is one."""
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if file:
        try:
            with Path(file).open("a", encoding="utf-8") as out:
                out.write(summary + "\n")
        except OSError as error:
            raise UsageError(
                f"GITHUB_STEP_SUMMARY ({file}) cannot be written: {error.strerror}",
                "unset it to have annotations only",
            ) from error
    return github_annotations(record)


def gitlab(record: GateRecord) -> str:
    """A GitLab metrics report (OpenMetrics text): what a merge request shows as
    changed. Ratios and values, one line each."""
    lines = []
    for row in record.rows:
        labels = f'{{artifact="{_label(row.artifact)}",batch="{row.batch if row.batch is not None else ""}"}}'
        unit = {"s": "seconds", "bytes": "bytes", "1/s": "per_second", "%": "percent"}.get(row.unit, row.unit)
        if row.candidate is not None:
            lines.append(f"mlopt_{row.metric}_{unit}{labels} {row.candidate:.9g}")
        if row.ratio is not None:
            lines.append(f"mlopt_{row.metric}_ratio{labels} {row.ratio.estimate:.6g}")
    lines.append(f"mlopt_gate_passed {int(record.verdict == 'PASS')}")
    return "\n".join([*lines, "# EOF"])


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
