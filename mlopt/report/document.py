"""What the report of a run says, before it is rendered: first what a busy person needs, then the tables."""

from __future__ import annotations

from typing import Any

from mlopt.records.bench import BenchRow, Ratio
from mlopt.records.edge import from_json
from mlopt.report import words
from mlopt.report.blocks import Bars, Block, Code, Document, Drawings, Facts, Lines, Point, Step, Table, Waterfall
from mlopt.report.explain import why_from_operators
from mlopt.report.words import duration, number, size

Record = dict[str, Any]


def ratio(row: Record | None) -> str:
    return words.ratio(Ratio(row["estimate"], row["low"], row["high"], 0.95) if row else None)


def _bench_of(record: Record, name: str, batch: int) -> dict[str, Any] | None:
    return next((row for row in record["bench"] if row["artifact"] == name and row["batch"] == batch), None)


def _first_batch(record: Record) -> int:
    return int(record["bench"][0]["batch"]) if record["bench"] else 1


def _accuracy_of(record: Record, name: str) -> float | None:
    if record["accuracy"] is None:
        return None
    if name == "eager dense":
        return float(record["accuracy"]["baseline"])
    if name == "eager compressed":
        values = [record["accuracy"]["after"].get(entry["name"]) for entry in record["passes"] if entry["pass"] in _TRUNK]
        found = [value for value in values if value is not None]
        return float(found[-1]) if found else float(record["accuracy"]["baseline"])
    return next((a["parity"]["metric"] for a in record["artifacts"] if a["name"] == name and a["parity"]), None)


_TRUNK = ("train", "prune", "finetune", "distill")
SMALLER_NOT_FASTER = 1.05


def _table(record: Record) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """One row an artifact: size, latency, speed-up, accuracy, and how far it is from its module."""
    metric = record["accuracy"]["metric"] if record["accuracy"] else None
    batch = _first_batch(record)
    columns = ("artifact", "size", f"p50, batch {batch}", "p90", "speed-up", *([f"{metric} %"] if metric else []), "error")
    entries: list[tuple[str, float | None, dict[str, Any] | None]] = []
    weights = record["compression"]["bytes"]
    shown = {row["artifact"] for row in record["bench"]}
    for name, key in (("eager dense", "before"), ("eager compressed", "after")):
        if name in shown or (name == "eager dense" and weights["before"]):
            entries.append((name, weights[key], None))
    entries += [(a["name"], a["bytes"], a["parity"]) for a in record["artifacts"]]
    entries += [(name, None, None) for name in dict.fromkeys(r["artifact"] for r in record["bench"]) if name not in {e[0] for e in entries}]
    rows = []
    for name, count, parity in entries:
        bench = _bench_of(record, name, batch)
        accuracy = _accuracy_of(record, name)
        rows.append(
            (
                name,
                size(count),
                duration(bench["p50_s"]) if bench else "not run",
                duration(bench["p90_s"]) if bench else "-",
                ratio(bench["speedup"]) if bench else "-",
                *([f"{accuracy:.2f}" if accuracy is not None else "-"] if metric else []),
                f"{parity['max_error']:.1e}" if parity else "-",
            )
        )
    return columns, tuple(rows)


def _headlines(record: Record) -> list[str]:
    """Smaller, faster, what it cost, what failed: in that order, each one sentence."""
    out = []
    for entry in record["passes"]:
        if entry["status"] in ("failed", "declined"):
            out.append(f"{'FAILED' if entry['status'] == 'failed' else 'DECLINED'}: {entry['name']}: {entry['reason']}")
    error = record.get("error")
    if isinstance(error, dict) and not any(error["message"] in line for line in out):
        out.append(f"FAILED: {error['message']}")
    elif error == "interrupted":
        out.append("INTERRUPTED: the same command goes on where this run stopped.")
    compression = record["compression"]
    macs, params = compression["macs"], compression["params"]
    if macs["before"] and macs["after"]:
        share = 1 - macs["after"] / macs["before"]
        out.append(
            f"Smaller: {share:.0%} fewer MACs ({number(macs['before'])} to {number(macs['after'])}), "
            f"{1 - params['after'] / params['before']:.0%} fewer parameters."
        )
    best = _best(record)
    if best is not None:
        word = "Faster" if best["speedup"]["low"] > 1 else "Not faster"
        out.append(f"{word}: {best['artifact']} runs {ratio(best['speedup'])} as fast as {best['speedup']['against']}, at batch {best['batch']}.")
    accuracy = record["accuracy"]
    if accuracy is not None:
        last = _accuracy_of(record, "eager compressed")
        worst = min((a["parity"]["metric"] for a in record["artifacts"] if a["parity"] and a["parity"]["metric"] is not None), default=None)
        lowest = min(value for value in (last, worst) if value is not None)
        metric = "R squared" if accuracy["metric"] == "r2" else accuracy["metric"]
        lost = accuracy["baseline"] - lowest
        change = f"{lost:.2f} points at most" if lost > 0 else "nothing"
        out.append(f"Cost: {change} of {metric} (dense {accuracy['baseline']:.2f}%, lowest {lowest:.2f}%, {accuracy.get('samples', '?')} samples).")
    out += record["notes"]
    return out


def _best(record: Record) -> dict[str, Any] | None:
    batch = _first_batch(record)
    rows = [row for row in record["bench"] if row["speedup"] and row["batch"] == batch]
    return max(rows, key=lambda row: row["speedup"]["estimate"]) if rows else None


def _why_not_faster(record: Record) -> list[str]:
    """Where smaller is not faster, say so and say why."""
    out = []
    for row in record["bench"]:
        if row["speedup"] and row["speedup"]["high"] < SMALLER_NOT_FASTER:
            reason = _reason(record, row)
            out.append(f"{row['artifact']} is not faster than the eager dense model at batch {row['batch']} ({ratio(row['speedup'])}): {reason}.")
    out += [f"{entry['name']}: {entry['metrics']['warning']}." for entry in record["passes"] if entry["metrics"].get("warning")]
    for entry in record["passes"]:
        if entry["metrics"].get("note"):
            out.append(f"{entry['name']}: {entry['metrics']['note']}.")
        if entry["metrics"].get("gain"):
            out.append(f"{entry['name']}: {entry['metrics']['gain']}")
        out += _slow_layers(entry)
        out += _cost_of_rounding(entry)
        if entry["metrics"].get("statistics"):
            count = entry["metrics"]["statistics"]
            out.append(f"{entry['name']}: {count} normalisations average over fewer channels than before; train further to recover what that costs.")
        if entry["metrics"].get("why_fixed"):
            out.append(f"{entry['name']}: {entry['metrics']['why_fixed']}.")
        if entry["metrics"].get("rung_reason"):
            out.append(f"{entry['name']}: {entry['metrics']['rung_reason']}.")
    precisions = {a["name"]: a["precision"] for a in record["artifacts"]}
    for row in record["bench"]:
        out += why_from_operators(from_json(BenchRow, row, "run.json", "a record of a run", ""), precisions.get(row["artifact"]))
    return out


SHOWN_LAYERS = 5


def _slow_layers(entry: Record) -> list[str]:
    """The layers that lost MACs and kept their time, the slowest by name."""
    slow = entry["metrics"].get("slow_layers") or []
    lines = [
        f"{entry['name']}: {row['layer']} has {row['macs']:.0%} of its MACs and {row['time']:.0%} of its time (eager, one sample): {row['reason']}."
        for row in slow[:SHOWN_LAYERS]
    ]
    return lines + ([f"{entry['name']}: {len(slow) - SHOWN_LAYERS} more such layers are in run.json."] if len(slow) > SHOWN_LAYERS else [])


def _cost_of_rounding(entry: Record) -> list[str]:
    rounding = entry["metrics"].get("rounding")
    if not rounding:
        return []
    lost = rounding["importance_kept_unrounded"] - rounding["importance_kept"]
    moved = rounding["reached"] - rounding["reached_unrounded"]
    step = rounding["round_to"]
    if step == 1 or (abs(lost) < 0.005 and abs(moved) < 0.005):
        return []
    return [
        f"{entry['name']}: widths in multiples of {step} moved the budget by {100 * moved:+.1f} points and the importance kept by {-100 * lost:+.1f}."
    ]


def _reason(record: Record, row: dict[str, Any]) -> str:
    name = row["artifact"]
    if name.startswith("model.int8-tensorrt"):
        return "its Q/DQ placement is TensorRT's, which ONNX Runtime's CPU kernels do not fuse"
    if name.startswith("model.fp16"):
        return "CPUs compute in float32: ONNX Runtime converts half precision back and forth"
    entry = next((e for e in record["passes"] if e["name"] == name and e["metrics"].get("float_operators")), None)
    if entry is not None:
        return f"{entry['metrics']['float_operators']} matrix operators stay in float between Q/DQ pairs"
    if row["p50_s"] < 2e-3:
        return "a call is so short that the cost of starting operators outweighs their work"
    return "the time is in operators whose work did not shrink (memory-bound or element-wise)"


def _charts(record: Record) -> list[Bars]:
    """Size, latency and accuracy, each over what was made."""
    charts = []
    weights = record["compression"]["bytes"]
    points = [] if not weights["before"] else [Point("eager dense", weights["before"] / 1e6, size(weights["before"]))]
    if weights["after"] and weights["after"] != weights["before"]:
        points.append(Point("eager compressed", weights["after"] / 1e6, size(weights["after"])))
    points += [Point(a["name"], a["bytes"] / 1e6, size(a["bytes"])) for a in record["artifacts"]]
    if len(points) > 1:
        charts.append(Bars("Size on disk", "shorter is better", tuple(points)))
    batch = _first_batch(record)
    bars = []
    for row in record["bench"]:
        if row["batch"] == batch:
            ms = row["p50_s"] * 1e3
            base = record["bench"][0]["p50_s"] * 1e3
            low, high = (base / row["speedup"]["high"], base / row["speedup"]["low"]) if row["speedup"] else (None, None)
            bars.append(Point(row["artifact"], ms, duration(row["p50_s"]), low, high))
    if len(bars) > 1:
        charts.append(Bars(f"Latency, p50, batch {batch}", "shorter is better", tuple(bars)))
    accuracy = record["accuracy"]
    if accuracy is not None and accuracy["after"]:
        steps = [Point("dense", accuracy["baseline"], f"{accuracy['baseline']:.2f}%")]
        steps += [Point(name, max(value, 0.0), f"{value:.2f}%") for name, value in accuracy["after"].items()]
        charts.append(Bars(f"{accuracy['metric'].capitalize()} after each pass", "longer is better", tuple(steps)))
    return charts


def _facts(record: Record) -> list[tuple[str, str]]:
    environment, seconds = record["environment"], record["seconds"]
    load = environment.get("load_at_start")
    facts = [
        ("CPU", f"{environment['cpu']}, {environment['cores']} cores{', virtual' if environment.get('virtual') else ''}"),
        ("Instruction sets", " ".join(environment["isa"]) or "unknown"),
        ("GPU", environment["gpu"] or "none"),
        ("Governor, kernel", f"{environment.get('governor') or 'not readable'}, {environment.get('kernel')}"),
        ("Load at start", ", ".join(f"{value:.1f}" for value in load) if load else "unknown"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())),
        ("Model", f"{record['source']['kind']}, SHA-256 {str(record['source']['sha256'])[:16]}"),
        ("Input", "; ".join(f"{s['name']}={','.join(map(str, s['dims']))} {s['dtype']}" for s in record["input"]) or "unknown"),
    ]
    kept = [(name, row) for name, row in record["compression"].items() if row["before"] and row["after"]]
    if kept:
        names = {"macs": "MACs", "params": "parameters"}
        shares = ", ".join(f"{row['after'] / row['before']:.1%} of the {names.get(name, name)}" for name, row in kept)
        facts.append(("What remains", shares))
    if record["bench"]:
        rounds = {row["rounds"] for row in record["bench"]}
        sets = record["bench"][0].get("epochs", 1)
        how = f"{min(rounds)} to {max(rounds)} interleaved rounds, {sets} set(s) of fresh processes, {record['bench'][0]['threads']} thread(s)"
        facts.append(("Measured", f"{how}, 95% intervals"))
    if seconds:
        facts.append(
            ("Run time", f"{seconds['total']:.1f} s: training {seconds['training']:.1f}, export {seconds['export']:.1f}, "
                         f"timing {seconds['timing']:.1f}, mlopt itself {seconds['mlopt']:.1f}")
        )  # fmt: skip
    return facts


WHY, NOT_MEASURED, ARTIFACTS, ENVIRONMENT = "Why not smaller or faster", "Not measured", "Artifacts", "Environment"
"""Headings by which others find a block."""


def _made_by(entry: Record) -> str:
    """What the bench calls the thing that a pass made; training does not change the shape, and so not the time."""
    return "eager compressed" if entry["pass"] == "prune" else entry["name"]


def _gains(record: Record) -> Table:
    """What each pass gave: size, time, accuracy."""
    batch = _first_batch(record)
    sizes = {a["name"]: a["bytes"] for a in record["artifacts"]}
    weights = record["compression"]["bytes"]
    sizes |= {"eager dense": weights["before"], "eager compressed": weights["after"]}
    rows = []
    before = record["accuracy"]["baseline"] if record["accuracy"] else None
    trunk = before
    for entry in record["passes"]:
        if entry["status"] not in ("ok", "cached"):
            continue
        bench = _bench_of(record, _made_by(entry), batch)
        gain = (bench.get("step") or bench["speedup"]) if bench else None
        parent = gain["against"] if gain else None
        now = _accuracy_after(record, entry["name"])
        since = trunk if now is not None else None
        if entry["pass"] in _TRUNK and now is not None:
            trunk = now
        time = ratio(gain) if gain else ("same shape" if entry["pass"] in ("train", "finetune", "distill") else "-")
        made = sizes.get(_made_by(entry)) if gain else None
        rows.append(
            (
                entry["name"],
                parent or "-",
                f"{size(sizes.get(parent))} to {size(made)}" if parent and made else "-",
                time,
                f"{now - since:+.2f}" if now is not None and since is not None else "-",
            )
        )
    return Table("What each pass gave", ("pass", "made from", "size", "faster by", "accuracy, points"), tuple(rows), left=2)


def _accuracy_after(record: Record, name: str) -> float | None:
    value = record["accuracy"]["after"].get(name) if record["accuracy"] else None
    return None if value is None else float(value)


def _waterfall(record: Record) -> list[Waterfall]:
    """From the dense module to the fastest artifact: what each step took off the time."""
    best = _best(record)
    if best is None or best["speedup"]["low"] <= 1:
        return []
    batch = best["batch"]
    path = [best]
    while path[-1].get("step") and len(path) < len(record["bench"]):
        parent = _bench_of(record, path[-1]["step"]["against"], batch)
        if parent is None:
            break
        path.append(parent)
    base = record["bench"][0]
    steps = [Step(base["artifact"], 0.0, base["p50_s"] * 1e3, duration(base["p50_s"]))]
    level = base["p50_s"] * 1e3
    for row in reversed(path):
        after = base["p50_s"] * 1e3 / row["speedup"]["estimate"]
        steps.append(Step(row["artifact"], level, after, f"{ratio(row.get('step') or row['speedup']).split(' ')[0]}"))
        level = after
    return [Waterfall(f"How the time fell, batch {batch}", "each step against the one above", tuple(steps))] if len(steps) > 2 else []


SHOWN = 6


def _slowest(record: Record) -> Table:
    """The slowest operators of the dense module, and of the fastest artifact."""
    best = _best(record)
    chosen = [row for row in (record["bench"][0] if record["bench"] else None, best) if row is not None and row.get("operators")]
    rows = []
    for row in chosen:
        total = sum(op["seconds"] for op in row["operators"]) or 1.0
        for op in row["operators"][:SHOWN]:
            kind = op["kind"] if op["kind"] != op["name"] else ""
            about = ", ".join(part for part in (kind, op["precision"], op["provider"]) if part)
            rows.append((row["artifact"], op["name"], about, duration(op["seconds"]), f"{op['seconds'] / total:.0%}"))
    return Table("Slowest operators, before and after", ("artifact", "operator", "kind", "time a call", "of the shown"), tuple(rows), left=3)


def summarise(record: Record) -> Document:
    """The document of a run."""
    import yaml

    columns, rows = _table(record)
    passes = tuple((e["name"], e["status"], f"{e['seconds']:.1f} s", str(e["metrics"].get("summary") or e["reason"] or "")) for e in record["passes"])
    blocks: list[Block] = [
        Table(ARTIFACTS, columns, rows),
        Drawings("", (*_charts(record), *_waterfall(record))),
        Lines(WHY, tuple(_why_not_faster(record))),
        Lines(NOT_MEASURED, tuple(dict.fromkeys(record["not_measured"]))),
        _gains(record),
        Table("Passes", ("pass", "status", "time", "what"), passes, left=4),
        _slowest(record),
        Facts(ENVIRONMENT, tuple(_facts(record))),
        Code("Recipe", "recipe.yaml", yaml.safe_dump(record["recipe"], sort_keys=False)),
    ]
    status = record["status"]
    return Document.of(f"mlopt: {record['recipe']['model']['path']}", status, status == "ok", _headlines(record), blocks)
