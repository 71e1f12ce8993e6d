"""Pruning beyond widths: the graph rung, plans, depth, latency, zeros, sensitivity, and
what is refused."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from zoo import ZOO, Block, FromStream, Mlp, Vision

import mlopt
from mlopt.artifact import TensorSpec
from mlopt.data.sets import Part
from mlopt.errors import ModelRefused, UsageError
from mlopt.measuring.layers import slow_layers
from mlopt.model import bundle
from mlopt.model import graph as graphs
from mlopt.model.replacements import Skipped
from mlopt.model.trust import Trust
from mlopt.pruning.budget import Amount
from mlopt.pruning.latency import TimeRatio, prune_to_latency
from mlopt.pruning.plan_file import Plan
from mlopt.pruning.pruner import GRAPH, MODULE, Options, Pruned, Pruner, prune_module
from mlopt.pruning.ranges import indices, ranges
from mlopt.pruning.sensitivity import measure
from mlopt.pruning.sparsity import masks_of, sparsify
from mlopt.recipe.configs import Finetune
from mlopt.training.loop import fit
from mlopt.training.objectives import supervised
from recipes.networks import digits_resnet
from tests.conftest import Cli


class Streamed(nn.Module):
    """Convolutions with batch norm and dropout before attention whose head width comes
    from the stream: only the graph can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Dropout(0.3))
        self.block = Block(FromStream(64, 8), nn.Identity(), lambda: nn.LayerNorm(64))
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


def by_graph() -> tuple[nn.Module, torch.Tensor, Pruned]:
    module, x = Streamed(), torch.randn(2, 1, 16, 16)
    return module, x, prune_module(module, (x,), "macs:0.3")


def test_the_graph_rung_trains_saves_and_exports(tmp_path: Path) -> None:
    _module, x, result = by_graph()
    assert result.report.rung == GRAPH
    assert "no attribute holds" in result.report.rung_reason
    assert isinstance(result.module, torch.fx.GraphModule)
    assert result.report.proof.holds
    assert abs(result.report.reached - 0.7) <= 0.03
    # Batch norm and dropout are modules that know training from evaluation, and any
    # batch size runs.
    many = torch.randn(7, 1, 16, 16)
    result.module.train()
    before = result.module.get_buffer("stem.1.running_mean").clone()
    assert not torch.equal(result.module(many), result.module(many))
    assert not torch.equal(before, result.module.get_buffer("stem.1.running_mean"))
    result.module.eval()
    assert torch.equal(result.module(many), result.module(many))
    fit(result.module, parts(many, torch.arange(7)), supervised, Finetune(epochs=1), 0)
    result.module.eval()
    # As data: no class of the model's is named, and it is the same network.
    run = mlopt.compress(result.module, x, out=tmp_path / "run", export=("onnx", "torchscript"), bench=False)
    assert run.record.status == "ok"
    head = json.loads((tmp_path / "run/model/model.json").read_text())
    assert "graph" in head
    assert "Streamed" not in json.dumps(head["graph"]["layers"])
    again = mlopt.load(tmp_path / "run")
    assert torch.equal(again(many), result.module(many))
    second = mlopt.prune(again, x, "macs:0.2")
    assert second.report.proof.holds


def test_a_graph_holds_no_code() -> None:
    _, _, result = by_graph()
    good = graphs.describe(result.module)  # type: ignore[arg-type]
    assert isinstance(graphs.rebuild(good, "here"), torch.fx.GraphModule)

    def refused(change: Any) -> None:
        bad = copy.deepcopy(good)
        change(bad)
        with pytest.raises(ModelRefused):
            graphs.rebuild(bad, "here")

    call = next(i for i, node in enumerate(good["nodes"]) if node["op"] == "call_function")
    for target in (
        "aten.from_file.default",
        "operator.attrgetter",
        "builtins.eval",
        "prim.device.default",
        "aten.__class__.__init__",
        "os.system",
    ):
        refused(lambda bad, target=target: bad["nodes"][call].update(target=target))
    for name in ("x; import os", "a.b", "", "x\n y"):
        refused(lambda bad, name=name: bad["nodes"][0].update(name=name))
    attribute = next(i for i, node in enumerate(good["nodes"]) if node["op"] == "get_attr")
    for path in ('a"]; import os #', "__class__", "a..b", "forward"):
        refused(lambda bad, path=path: bad["nodes"][attribute].update(target=path))
    refused(lambda bad: bad["layers"].update({"stem.1": {"class": "Lambda"}}))
    refused(
        lambda bad: bad["tensors"].update(
            {"stem.1.weight": {"kind": "parameter", "shape": [1], "dtype": "load", "grad": True}}
        )
    )
    refused(
        lambda bad: (
            bad["nodes"].append(
                {"name": "y", "op": "call_method", "target": "__reduce__", "args": {"tuple": []}, "x": 1}
            )
            or bad.pop("name")
        )
    )
    refused(lambda bad: bad.update(name="X(); import os"))


def test_a_long_sequential_keeps_its_order(tmp_path: Path) -> None:
    """Eleven children and more: "10" sorts before "2"."""
    module = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(12))).eval()
    bundle.write(tmp_path, module, bundle.Bundle(bundle.origin_of(module), (TensorSpec("x", ("batch", 8)),)))
    again, _ = bundle.read(tmp_path, Trust())
    x = torch.randn(2, 8)
    assert torch.equal(again.eval()(x), module(x))


# Plans


def test_a_plan_applies_to_another_checkpoint(tmp_path: Path) -> None:
    x = torch.randn(2, 1, 16, 16)
    first = mlopt.prune(digits_resnet(32), x, "macs:0.5", importance="l1")
    first.plan.write(tmp_path / "plan.json")
    torch.manual_seed(5)
    other = digits_resnet(32)
    second = mlopt.apply_plan(other, x, tmp_path / "plan.json")
    assert second.surgery == first.surgery
    assert second.report.proof.holds
    assert second.report.reached == pytest.approx(first.report.reached)
    assert Plan.read(tmp_path / "plan.json") == first.plan
    group = first.plan.groups[0]
    assert group.reason.startswith("lowest l1")
    assert len(group.importance) == group.before // 1


def test_an_edited_plan_is_followed_or_refused(tmp_path: Path) -> None:
    x, module = torch.randn(2, 1, 16, 16), digits_resnet(32)
    mlopt.prune(module, x, "macs:0.5").plan.write(tmp_path / "plan.json")
    data = json.loads((tmp_path / "plan.json").read_text())

    def applied(change: Any) -> Pruned:
        edited = copy.deepcopy(data)
        change(edited)
        (tmp_path / "edited.json").write_text(json.dumps(edited))
        return mlopt.apply_plan(module, x, tmp_path / "edited.json")

    (where,) = data["groups"][1]["kept"]
    name = where.rpartition(":")[0]
    assert applied(lambda d: d["groups"][1]["kept"].update({where: "0-2,5"})).surgery.weights[name][0] == [
        0,
        1,
        2,
        5,
    ]
    for change in (
        lambda d: d["groups"][1]["kept"].update({where: "0-999"}),
        lambda d: d["groups"][1]["kept"].update({where: "none"}),
        lambda d: d["groups"][1].update(kept={"missing.weight:0": "0-1"}),
        lambda d: d["groups"].append({"name": "x", "kind": "channels", "kept": {"head.weight:0": "0-3"}}),
        lambda d: d["architecture"].update({"stem.0.weight": [64, 1, 3, 3]}),
        lambda d: d.pop("groups"),
        lambda d: d.update(schema_version=99),
    ):
        with pytest.raises(UsageError):
            applied(change)
    (tmp_path / "edited.json").write_text("not json")
    with pytest.raises(UsageError, match="not a pruning plan"):
        mlopt.apply_plan(module, x, tmp_path / "edited.json")


def test_ranges_are_read_back() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert indices(ranges([3]), 4, "w") == [3]


def test_the_command_line_prunes_and_applies_a_plan(cli: Cli, tmp_path: Path, digits_npz: Path) -> None:
    model = "recipes.networks:digits_resnet"
    made = cli("prune", model, "--amount", "0.5", "--keep", "stem", "--data", digits_npz, "-o", "a")
    assert made.returncode == 0, made.stderr
    again = cli("prune", model, "--plan", "a/plan.json", "--data", digits_npz, "-o", "b")
    assert again.returncode == 0, again.stderr
    for file in ("weights.safetensors", "surgery.json"):
        assert (tmp_path / "a/model" / file).read_bytes() == (tmp_path / "b/model" / file).read_bytes()
    assert (
        "stem.0.weight"
        not in json.loads((tmp_path / "a/model/surgery.json").read_text())["surgeries"][0]["weights"]
    )
    for arguments in (
        ("prune", model),
        ("prune", model, "--plan", "none.json"),
        ("prune", model, "--amount", "0.5", "--keep", "("),
    ):
        refused = cli(*arguments)
        assert refused.returncode == 2
        assert "hint" in refused.stderr
        assert "Traceback" not in refused.stderr


# Depth


def test_the_blocks_that_matter_least_are_left_out(tmp_path: Path) -> None:
    module, (x,) = ZOO["vit"]()
    module = Vision(lambda: Block(FromStream(64, 8), Mlp(64), lambda: nn.LayerNorm(64)), depth=4)
    with torch.no_grad():
        for parameter in module.blocks[2].parameters():
            parameter.mul_(1e-3)  # a block that does nearly nothing
    result = prune_module(module, (x,), "layers:1")
    assert isinstance(result.module.blocks[2], Skipped)  # type: ignore[index]
    assert [g.after for g in result.report.groups] == [1, 1, 0, 1]
    assert result.report.proof.holds
    assert result.report.after.macs < result.report.before.macs
    narrower = prune_module(result.module, (x,), "macs:0.3")  # the two compose
    assert narrower.report.proof.holds
    head = bundle.Bundle(bundle.origin_of(module), (TensorSpec("x", ("batch", 3, 32, 32)),))
    bundle.write(
        tmp_path,
        narrower.module,
        head.after(result.module, result.surgery).after(narrower.module, narrower.surgery),
    )
    own = ("zoo.*",)
    again, _ = bundle.read(tmp_path, Trust(allow_class=own))
    assert torch.equal(again.eval()(x), narrower.module.eval()(x))
    with pytest.raises(UsageError, match="one must stay"):
        mlopt.prune(module, x, "layers:4")


def test_a_depth_plan_applies() -> None:
    pytest.importorskip("transformers")
    module, inputs = ZOO["hf_llama_forcausallm"]()
    first = prune_module(module, inputs, "layers:1")
    second = Pruner(module, inputs).apply_plan(first.plan)
    assert second.surgery == first.surgery


# Latency


def test_latency_is_searched_on_what_is_measured() -> None:
    """A clock that is not linear in the MACs: the search must find the cut whose time,
    not whose MACs, is the target."""
    pruner = Pruner(digits_resnet(32), (torch.randn(2, 1, 16, 16),))
    seen = []

    def measured(candidate: Pruned) -> TimeRatio:
        ratio = 0.2 + 0.8 * candidate.report.reached**1.5
        seen.append(ratio)
        return TimeRatio(ratio, ratio - 0.01, ratio + 0.01)

    pruned, trials = prune_to_latency(pruner, 0.5, measured)
    assert len(seen) == len(trials) <= 8
    assert abs(0.2 + 0.8 * pruned.report.reached**1.5 - 0.5) <= 0.03
    assert pruned.report.proof.holds


def test_a_latency_below_the_floor_gives_the_floor() -> None:
    pruner = Pruner(digits_resnet(32), (torch.randn(2, 1, 16, 16),))
    pruned, _ = prune_to_latency(
        pruner, 0.1, lambda made: TimeRatio(0.6 + 0.4 * made.report.reached, 0.0, 1.0)
    )
    assert pruned.report.reached < 0.1


@pytest.mark.slow
def test_latency_on_a_real_runtime(tmp_path: Path) -> None:
    result = mlopt.prune(digits_resnet(64), torch.randn(2, 1, 16, 16), "latency:0.5")
    assert result.report.amount == "latency:0.5"
    assert abs(result.report.reached - 0.5) <= 0.05


# Zeros


@pytest.mark.parametrize("kind", ["unstructured", "2:4"])
def test_zeros_survive_training(kind: str) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 8), nn.ReLU(), nn.Linear(8, 4)
    )
    sparse = sparsify(module, kind, 0.6)
    masks = masks_of(module, sparse.names)
    zeros = {name: int((mask == 0).sum()) for name, mask in masks.items()}
    if kind == "2:4":
        weight = module[3].weight.detach()  # type: ignore[union-attr]
        assert ((weight.reshape(8, -1, 4) != 0).sum(-1) <= 2).all()  # type: ignore[operator]
        assert sparse.skipped == {"0.weight": "its input width 3 is no multiple of 4"}
    else:
        assert sum(zeros.values()) == sparse.zeros == round(0.6 * sparse.weights)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    x, y = torch.randn(32, 3, 8, 8), torch.randint(0, 4, (32,))
    fit(
        module,
        parts(x, y),
        supervised,
        Finetune(epochs=2, batch_size=16, weight_decay=0.1),
        0,
        sparse=sparse.names,
    )
    for name, parameter in module.named_parameters():
        assert not torch.equal(before[name], parameter), f"{name} was not trained"
        if name in masks:
            assert torch.equal(parameter[masks[name] == 0], torch.zeros(zeros[name])), (
                f"{name} lost its zeros"
            )


def parts(x: torch.Tensor, y: torch.Tensor) -> Part:
    from mlopt.data.sets import Data, adopt

    loaded = adopt(Data(train=torch.utils.data.TensorDataset(x, y)))
    assert loaded.train is not None
    return loaded.train


def compress_half(cli: Cli, digits_npz: Path, *options: str) -> None:
    """`mlopt compress --prune 0.5` of the digits network with these options, into
    `run`."""
    fixed = ("--prune", "0.5", "--export", "onnx", "--data", digits_npz, "--no-bench", "-o", "run")
    made = cli("compress", "recipes.networks:digits_resnet", *fixed, *options)
    assert made.returncode == 0, made.stderr


def test_zeros_reach_the_exports_and_the_report(cli: Cli, tmp_path: Path, digits_npz: Path) -> None:
    compress_half(cli, digits_npz, "--sparsity", "2:4", "--finetune", "1")
    import onnx
    from onnx import numpy_helper

    weights = [
        numpy_helper.to_array(t)
        for t in onnx.load(str(tmp_path / "run/exports/model.onnx")).graph.initializer
    ]
    wide = [w for w in weights if w.ndim == 4 and w.shape[1] % 4 == 0]
    assert wide
    assert all(np.count_nonzero(w) <= w.size / 2 for w in wide)
    text = (tmp_path / "run/report.md").read_text()
    assert "as fast as without zeros" in text
    assert "Sparse tensor cores" in text


# Sensitivity, and why smaller is not faster


def test_sensitivity_tells_a_useless_width_from_a_needed_one() -> None:
    module = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    with torch.no_grad():
        module[2].weight[16:] = 0.0  # type: ignore[index,operator]
        module[2].bias[16:] = 0.0  # type: ignore[index,operator]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = torch.randn(16, 4)
    dense = module(x)
    found = measure(
        "change", Pruner(module, (x,)), lambda changed: (changed(x) - dense).norm().item(), (0.5, 0.75)
    )
    assert found.groups == ("0.weight", "2.weight")
    (needed, _), (useless, more) = found.values
    assert useless < 1e-6 < needed
    assert more > 0.0
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items()), (
        "the module was changed"
    )


def test_sensitivity_on_the_command_line(cli: Cli, tmp_path: Path, digits_npz: Path) -> None:
    model = "recipes.networks:digits_resnet"
    made = cli("inspect", model, "--sensitivity", "--data", digits_npz, "--svg", "s.svg")
    assert made.returncode == 0, made.stderr
    assert "accuracy" in made.stdout
    assert "blocks.0.conv1.weight" in made.stdout
    drawing = (tmp_path / "s.svg").read_text()
    assert drawing.startswith("<svg")
    assert "blocks.0.conv1.weight" in drawing
    assert cli("inspect", model, "--svg", "s.svg").returncode == 2


def test_layers_that_did_not_get_faster_are_named_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlopt.measuring import layers

    dense = nn.Sequential(
        nn.Conv2d(8, 64, 3), nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 16, 1)
    )
    pruned = nn.Sequential(
        nn.Conv2d(8, 37, 3), nn.Conv2d(37, 37, 3, groups=37), nn.Conv2d(37, 40, 1), nn.Conv2d(40, 16, 1)
    )
    macs = {
        "0": (2.0, 1.0),
        "1": (2.0, 1.0),
        "2": (2e6, 1e6),
        "3": (2e6, 1e6),
        "": (1.0, 0.5),
        "gone": (2.0, 1.0),
    }
    times = [{str(i): 1e-3 for i in range(4)}, {"0": 0.9e-3, "1": 0.9e-3, "2": 0.9e-3, "3": 0.5e-3}]
    monkeypatch.setattr(layers, "time_layers", lambda *args: times)
    found = {row.layer: row.reason for row in slow_layers(dense, pruned, (torch.randn(1, 8, 8, 8),), macs, 1)}
    assert set(found) == {"0", "1", "2"}
    assert "odd widths (37)" in found["0"]
    assert "depthwise" in found["1"]
    assert "odd widths (37)" in found["2"]


def test_layers_are_really_timed() -> None:
    module = digits_resnet(32)
    x = torch.randn(2, 1, 16, 16)
    result = prune_module(module, (x,), "macs:0.5")
    assert sum(before for before, _ in result.report.layers.values()) == pytest.approx(
        result.report.before.macs
    )
    assert sum(after for _, after in result.report.layers.values()) == pytest.approx(result.report.after.macs)
    for row in slow_layers(module, result.module, (x[:1],), result.report.layers, 1):
        assert row.time > row.macs
        assert row.seconds > 0
        assert row.reason


# Budgets and options


def test_iterations_reach_the_same_share_on_one_schedule(cli: Cli, tmp_path: Path, digits_npz: Path) -> None:
    compress_half(cli, digits_npz, "--iterations", "2", "--finetune", "2")
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert [entry["pass"] for entry in record["passes"]] == ["prune", "finetune", "prune", "finetune", "onnx"]
    assert [entry["config"]["part"] for entry in record["passes"] if entry["pass"] == "finetune"] == [
        [0.0, 0.5],
        [0.5, 1.0],
    ]
    macs = record["compression"]["macs"]
    assert abs(macs["after"] / macs["before"] - 0.5) <= 0.03
    assert (tmp_path / "run/plan.json").is_file()
    assert (tmp_path / "run/plan-2.json").is_file()


@pytest.mark.parametrize("importance", ["l1", "bn", "random"])
def test_every_importance_meets_the_budget(importance: str) -> None:
    result = prune_module(digits_resnet(32), (torch.randn(2, 1, 16, 16),), "macs:0.5", Options(importance))
    assert abs(result.report.reached - 0.5) <= 0.03
    assert result.report.proof.holds


def test_batch_norm_scales_rank_channels() -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 3))
    with torch.no_grad():
        module[1].weight.copy_(torch.arange(16.0))  # type: ignore[union-attr,operator]
    result = prune_module(module, (torch.randn(2, 3, 8, 8),), "channels:0.5", Options("bn"))
    assert result.surgery.weights["1.weight"][0] == list(range(8, 16))


def test_widths_are_finer_only_where_the_budget_needs_it() -> None:
    tied = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 3))
    x = torch.randn(4, 8)
    loose, strict = (
        prune_module(tied, (x,), "macs:0.5"),
        prune_module(tied, (x,), "macs:0.5", Options(round_to=8)),
    )
    assert abs(loose.report.reached - 0.5) <= 0.03
    assert loose.report.rounding.round_to < 8
    assert "asked for" in strict.report.note
    assert all(g.after % 8 == 0 for g in strict.report.groups)


def test_no_tensor_is_left_empty() -> None:
    """Queries and gates from one linear layer (as in focal modulation): the weakest
    part must not vanish as a whole."""

    class Focal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.mix, self.out = nn.Linear(8, 64 + 4), nn.Linear(64, 64), nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            context, gates = torch.split(self.f(x), [64, 4], -1)
            return self.out(self.mix(context) * gates.sum(-1, keepdim=True))

    module = Focal()
    with torch.no_grad():
        module.f.weight[64:] *= 1e-3
    result = prune_module(module, (torch.randn(2, 8),), "macs:0.7")
    assert result.report.proof.holds


# What is refused, and what is not


def test_bad_modules_get_one_clear_error() -> None:
    net, x = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3)), torch.randn(2, 8)
    with torch.device("meta"):
        nowhere = nn.Linear(8, 8)
    cases: list[tuple[nn.Module, Any, dict[str, Any], str]] = [
        (nowhere, x, {}, "meta device"),
        (nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 3)), x, {}, "lazy"),
        (net, torch.randn(2, 9), {}, "does not run on these inputs"),
        (net, (), {}, "does not run on these inputs"),
        (net, {"y": x}, {}, "no argument y"),
        (net, x, {"importance": "l3"}, "not an importance"),
        (net, x, {"spread": "wide"}, "not a spread"),
        (net, x, {"keep": ["nothing"]}, "no weight matches"),
        (net, x, {"keep": [".*"]}, "nothing to prune"),
        (net, x, {"round_to": 64}, "lower round_to"),
        (net, x, {"amount": "layers:1"}, "no repeated residual block"),
        (net, x * float("nan"), {}, "only NaN"),
    ]
    for module, inputs, options, message in cases:
        with pytest.raises(UsageError, match=message):
            mlopt.prune(module, inputs, options.pop("amount", 0.5), **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_proved_in_float32(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3)).to(dtype)
    result = prune_module(module, (torch.randn(2, 8, dtype=dtype),), "0.5")
    assert result.report.proof.precision == "float32"
    assert result.report.proof.error < 1e-5
    assert result.module[0].weight.dtype == dtype  # type: ignore[index,union-attr]


def test_hooks_modes_duplicates_and_frozen_weights() -> None:
    def net() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 3)
        )

    x = torch.randn(2, 8)
    hooked, twice, shared, frozen, training = net(), net(), net(), net().requires_grad_(False), net().train()
    hooked[0].register_forward_hook(lambda module, args, output: output * 2)
    twice[4] = twice[2]
    shared[4].weight = shared[2].weight
    for module in (hooked, twice, shared, frozen, training):
        result = prune_module(module, (x,), "0.5")
        assert result.report.proof.holds
        assert abs(result.report.reached - 0.5) <= 0.03
    assert all(child.training for child in training.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    assert result.module.training


def test_computed_weights_say_how_to_make_them_plain() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Linear(64, 64))
    for layer in (
        nn.utils.parametrizations.weight_norm(nn.Linear(64, 64)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(64, 64)),
        old,
    ):
        module = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), layer, nn.ReLU(), nn.Linear(64, 3))
        with pytest.raises(
            UsageError, match=r"computed from others or from a hook \(2\).*remove_parametrizations"
        ):
            mlopt.prune(module, torch.randn(2, 8), 0.3)


def test_a_deep_untrained_network_is_proved_in_float64() -> None:
    """The signal of an untrained network without normalisation dies: float32 could not
    tell a right cut from a wrong one."""
    layers = [layer for _ in range(16) for layer in (nn.Linear(32, 32), nn.ReLU())]
    module = nn.Sequential(nn.Linear(8, 32), *layers, nn.Linear(32, 3))
    with torch.no_grad():
        for child in module:
            if isinstance(child, nn.Linear):
                child.weight *= 0.3
                child.bias.zero_() if child.out_features == 32 else child.bias.fill_(1.0)
    result = prune_module(module, (torch.randn(4, 8),), "0.5")
    assert result.report.proof.precision == "float64"
    assert result.report.proof.moved > 0


def test_inputs_may_be_named_or_left_out() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 64), nn.Linear(64, 3)

        def forward(
            self, x: torch.Tensor, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None
        ) -> torch.Tensor:
            y = F.relu(self.a(x))
            y = y if scale is None else y * scale
            return self.b(y if shift is None else y + shift)

    x, one = torch.randn(2, 8), torch.ones(2, 1)
    for inputs in ({"x": x, "shift": one}, (x, None, one), x):
        assert mlopt.prune(Two(), inputs, 0.5).report.proof.holds  # type: ignore[arg-type]


def test_the_rung_is_said() -> None:
    assert prune_module(digits_resnet(32), (torch.randn(2, 1, 16, 16),), "0.5").report.rung == MODULE
    assert str(Amount.parse("layers:2")) == "layers:2"
    with pytest.raises(UsageError):
        Pruner(digits_resnet(32), (torch.randn(2, 1, 16, 16),)).prune("latency:0.5")
