"""`mlopt gate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlopt.cli.common import (
    Screen,
    input_option,
    ints,
    output_options,
    screen_of,
    store_option,
    trust_of,
    trust_options,
)

if TYPE_CHECKING:
    from mlopt.judging.policy import Policy
    from mlopt.records.gate import GateRecord

OVERRIDES = {
    "max_latency": "latency.tolerance",
    "max_tail": "tail.tolerance",
    "max_size": "size.tolerance",
    "max_memory": "memory.tolerance",
    "max_drop": "accuracy.max_drop",
    "min_agreement": "parity.min_agreement",
    "budget": "budget_s",
    "confidence": "confidence",
    "threads": "threads",
    "batch": "batch",
    "device": "device",
    "copies": "copies",
}
"""Which value of the policy an option replaces."""

SELF_TEST_S = 240.0


@click.command(short_help="judge: yes or no")
@click.argument("candidate", required=False)
@click.option(
    "--baseline",
    help=(
        "An artifact, a MODEL, a run directory, a manifest (baseline.json), or `eager`: the candidate's own"
        " dense module."
    ),
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    help="gate.yaml; options below replace its values.",
)
@click.option(
    "--profile",
    type=click.Choice(["default", "strict", "coarse"]),
    help="Latency within 2.5%, 1.5% or 5%. Not with --policy.",
)
@click.option("--max-latency", metavar="2.5%", help="How much slower the low end of the calls may be.")
@click.option("--max-tail", metavar="10%", help="The same for the 95th percentile.")
@click.option("--max-size", metavar="5%", help="How much larger the file may be.")
@click.option("--max-memory", metavar="10%", help="The same for the peak memory of a process that runs it.")
@click.option(
    "--max-drop",
    type=float,
    metavar="POINTS",
    help="Points of accuracy that may be lost; needs --data, or two run directories.",
)
@click.option(
    "--min-agreement", type=float, metavar="SHARE", help="Share of samples on which both must decide alike."
)
@click.option("--budget", type=float, metavar="SECONDS", help="For each comparison, at most. Default: 30.")
@click.option(
    "--confidence", type=float, metavar="0.99", help="1 minus the chance of a wrong FAIL at a tolerance."
)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--batch", callback=lambda c, p, v: ints(c, p, v) if v else None, metavar="1,8")
@click.option("--device", type=click.Choice(["cpu", "cuda"]))
@click.option(
    "--copies", type=click.Choice(["in", "out"]), help="Copies to and from the device: in or out of the time."
)
@click.option("--data", metavar="DATA", help="Labelled data, to measure the accuracy of both.")
@click.option("--artifact", metavar="NAME", help="Judge this one of a run directory: model.onnx")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Write gate.json, report.html, report.md, junit.xml and every sample there.",
)
@click.option(
    "--save-baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Make CANDIDATE the baseline: measure it, write FILE.",
)
@click.option(
    "--self-test",
    is_flag=True,
    help="A/A and known slow-downs on this machine: what the gate's word is worth here. Four minutes.",
)
@input_option
@trust_options
@store_option
@output_options
def command(candidate: str | None, **options: Any) -> int:
    """Is CANDIDATE as good as its baseline? Both are run, interleaved, in fresh
    processes.

    \b
    Exit 0 PASS; 1 FAIL, ANOMALOUS or INVALID; 5 INCONCLUSIVE; 6 INCOMPARABLE.
    """
    from mlopt.errors import UsageError

    screen = screen_of(options)
    if options["self_test"]:
        return _self_test(options["budget"] or SELF_TEST_S, options["out"], screen)
    if candidate is None or (options["baseline"] is None and options["save_baseline"] is None):
        raise UsageError("a gate needs a CANDIDATE and --baseline", "mlopt gate new.onnx --baseline old.onnx")
    policy = policy_of(options["policy_file"], options["profile"], options)
    from mlopt.judging.run import Gate
    from mlopt.measuring.files import parse_inputs

    trust = trust_of(options)
    gate = Gate(
        policy,
        trust,
        parse_inputs(options["inputs"]),
        options["data"],
        options["out"],
        screen.say,
        _store(options["store"]),
    )
    try:
        if options["save_baseline"] is not None:
            names = gate.save_baseline(candidate, options["save_baseline"])
            screen.done()
            _show_baseline(options["save_baseline"], names, options["baseline"] is None, screen)
            if options["baseline"] is None:
                return 0
        verdict = gate.judge(candidate, options["baseline"], options["artifact"])
    finally:
        screen.done()
    return show(verdict.record(_command_line()), options["out"], screen)


def policy_of(file: Path | None, profile: str | None, overrides: Mapping[str, object]) -> Policy:
    """The policy of the file or of the profile, with what was given on the command
    line. Raises `UsageError`."""
    from mlopt.errors import UsageError
    from mlopt.judging import policy

    if file is not None and profile is not None:
        raise UsageError("--policy and --profile both say what is judged", "give one of them")
    base = policy.load(file) if file is not None else policy.profile(profile or "default")
    return policy.build(
        base, {path: overrides[name] for name, path in OVERRIDES.items() if overrides[name] is not None}
    )


def _show_baseline(file: Path, names: list[str], alone: bool, screen: Screen) -> None:
    """Say what was saved. `alone`: no verdict follows. With `--json`, standard output
    holds one JSON object and nothing else."""
    if not screen.as_json:
        screen.line(f"baseline  {file}: {', '.join(names)}")
    elif alone:
        screen.json({"baseline": str(file), "artifacts": names})


def show(record: GateRecord, out: Path | None, screen: Screen) -> int:
    """Print the verdict, write the reports, return the exit code."""
    from mlopt.records.edge import to_json
    from mlopt.report.verdict_words import columns, headline, table_row
    from mlopt.report.write import write_gate
    from mlopt.system.files import explain_os_error

    if out is not None:
        try:
            write_gate(out, record)
        except OSError as error:
            raise explain_os_error(error, out) from error
    if screen.as_json:
        screen.json(to_json(record))
        return record.exit_code
    if record.rows:
        screen.table(columns(), [table_row(row) for row in record.rows], left=2)
        screen.out.print()
    for line in (*record.notes, headline(record)):
        screen.line(line)
    if out is not None:
        screen.line(f"report  {out / 'report.html'}")
    return record.exit_code


def _self_test(budget_s: float, out: Path | None, screen: Screen) -> int:
    """Rates of this machine, as a table."""
    from mlopt.judging.selftest import self_test
    from mlopt.measuring.environment import fingerprint
    from mlopt.records.edge import to_json, write_json
    from mlopt.records.gate import SelfTestFile
    from mlopt.report.words import duration

    try:
        rows = self_test(budget_s, screen.say)
    finally:
        screen.done()
    result = to_json(SelfTestFile(environment=fingerprint(), self_test=tuple(rows)))
    if out is not None:
        write_json(out / "self-test.json", result)
    if screen.as_json:
        screen.json(result)
        return 0
    heads = (
        "truth",
        "profile",
        "right verdict",
        "comparisons",
        "right",
        "wrong",
        "inconclusive",
        "median time",
    )
    shown = [
        (
            row.name,
            row.profile,
            row.want,
            *map(str, (row.trials, row.right, row.wrong, row.inconclusive)),
            duration(row.median_s),
        )
        for row in rows
    ]
    screen.table(heads, shown, left=3)
    return 0


def _command_line() -> str:
    import shlex
    import sys

    return "mlopt " + " ".join(shlex.quote(word) for word in sys.argv[1:])


def _store(place: Path | None) -> Any:
    """The store that was named; None for the user's, which is looked for only when it
    is needed."""
    from mlopt.run.store import Store

    return None if place is None else Store(place)
