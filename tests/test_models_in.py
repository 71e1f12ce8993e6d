"""Every row of the MODEL table, and the files that attack it. Nothing in a model file
runs unasked."""

from __future__ import annotations

import functools
import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

import mlopt
from mlopt.errors import ModelRefused, UsageError
from mlopt.model import bundle
from mlopt.model.inputs import infer, parse_spec
from mlopt.model.origin import FactoryOrigin
from mlopt.model.sources import adopt, open_model
from mlopt.model.trust import Trust
from recipes.networks import digits_resnet, digits_vit
from tests.conftest import plain_cnn

FACTORY = "recipes.networks:digits_resnet"


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def same(a: nn.Module, b: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(a.eval()(x), b.eval()(x))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "make",
    [plain_cnn, lambda: nn.LSTM(4, 8, 2), lambda: nn.TransformerEncoderLayer(16, 4, 32, activation="gelu")],
)
def test_stock_pickles_load_without_flags(tmp_path: Path, make: Any, zipped: bool) -> None:
    module = make()
    torch.save(module, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    loaded = open_model(str(tmp_path / "m.pt"), Trust()).module
    assert loaded is not None
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.state_dict().values(), module.state_dict().values(), strict=True)
    )
    if isinstance(module, nn.Sequential):
        same(loaded, module, torch.randn(2, 3, 8, 8))


def test_partial_of_a_layer_loads_and_stays_callable(tmp_path: Path) -> None:
    module = plain_cnn()
    module.norm_layer = functools.partial(nn.LayerNorm, eps=1e-6)  # type: ignore[assignment]
    torch.save(module, tmp_path / "m.pt")
    loaded = open_model(str(tmp_path / "m.pt"), Trust()).module
    assert loaded is not None
    assert loaded.norm_layer(4).eps == 1e-6  # type: ignore[operator,union-attr]


def test_shared_weights_stay_shared(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    torch.save(module, tmp_path / "m.pt")
    source = open_model(str(tmp_path / "m.pt"), Trust())
    assert source.module[0].weight is source.module[1].weight  # type: ignore[index]
    (tmp_path / "b").mkdir()
    bundle.write(tmp_path / "b", *source.trunk())
    again, _ = bundle.read(tmp_path / "b", Trust())
    assert again[0].weight is again[1].weight  # type: ignore[index]


def test_custom_class_needs_its_narrow_flag(tmp_path: Path, model_pt: Path) -> None:
    with pytest.raises(ModelRefused, match=r"recipes.networks.ResNet") as refusal:
        open_model(str(model_pt), Trust())
    assert "--allow-class recipes.networks.ResNet" in refusal.value.hint
    flags = tuple(refusal.value.hint.split("--allow-class ")[1:])
    assert (
        open_model(str(model_pt), Trust(allow_class=tuple(flag.strip() for flag in flags))).module is not None
    )
    assert open_model(str(model_pt), Trust(allow_class=("recipes.networks.*",))).module is not None


def test_weights_need_their_network(tmp_path: Path) -> None:
    module = digits_resnet(16)
    torch.save(module.state_dict(), tmp_path / "sd.pt")
    torch.save({"epoch": 3, "state_dict": module.state_dict()}, tmp_path / "ckpt.pt")
    safetensors.torch.save_file(module.state_dict(), tmp_path / "sd.safetensors")
    for name in ("sd.pt", "ckpt.pt", "sd.safetensors"):
        with pytest.raises(ModelRefused, match="weights only") as refusal:
            open_model(str(tmp_path / name), Trust())
        assert "--arch" in refusal.value.hint
        loaded = open_model(str(tmp_path / name), Trust(arch=FACTORY, arch_args={"width": 16})).module
        assert loaded is not None
        same(loaded, module, torch.randn(2, 1, 16, 16))
    with pytest.raises(UsageError, match="does not fit"):
        open_model(str(tmp_path / "sd.pt"), Trust(arch=FACTORY, arch_args={"width": 8}))


@pytest.mark.parametrize(
    "reference", ["recipes.networks:nothing", "no.such.module:f", "recipes.networks:__doc__", "json:loads"]
)
def test_bad_factories(reference: str) -> None:
    with pytest.raises(UsageError):
        open_model(reference, Trust())


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save(Attack(ran), tmp_path / "zip.pt")
    torch.save(Attack(ran), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"w": torch.zeros(2)}, "x": Attack(ran)}, tmp_path / "inside.pt")
    module = plain_cnn()
    module.extra = Attack(ran)  # type: ignore[assignment]
    torch.save(module, tmp_path / "attribute.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Attack(ran)))
    for name in ("zip.pt", "legacy.pt", "inside.pt", "attribute.pt", "raw.pt"):
        with pytest.raises(ModelRefused):
            open_model(str(tmp_path / name), Trust())
    with pytest.raises(ModelRefused) as refusal:
        open_model(str(tmp_path / "zip.pt"), Trust())
    assert "attack" in refusal.value.hint
    # Even with a class allowed, the call beside it is not.
    with pytest.raises(ModelRefused, match=r"posix.system"):
        open_model(str(tmp_path / "attribute.pt"), Trust(allow_class=("recipes.*",)))
    assert not ran.exists()


def test_a_class_of_a_script_gets_advice_that_helps(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, torch\nclass Net(torch.nn.Module):\n    pass\ntorch.save(Net(), sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.pt")], check=True)
    with pytest.raises(ModelRefused, match=r"__main__.Net") as refusal:
        open_model(str(tmp_path / "m.pt"), Trust())
    assert "state_dict" in refusal.value.hint
    assert "--arch" in refusal.value.hint


def test_allowed_names_are_not_called(tmp_path: Path) -> None:
    """A pickle that calls an allow-listed activation or constructs a layer with hostile
    arguments does neither."""

    class Call:
        def __init__(self, function: Any, *args: Any) -> None:
            self.function, self.args = function, args

        def __reduce__(self) -> Any:
            return self.function, self.args

    torch.save(Call(torch.nn.functional.relu, 3), tmp_path / "f.pt")
    torch.save(Call(nn.Linear, 10**9, 10**9), tmp_path / "c.pt")
    torch.save(Call(torch.nn.init.zeros_, 3), tmp_path / "i.pt")
    for name in ("f.pt", "i.pt", "c.pt"):  # had the constructor run, it would have asked for 4 EB
        with pytest.raises(UsageError):
            open_model(str(tmp_path / name), Trust())


def test_hooks_are_refused(tmp_path: Path) -> None:
    module = plain_cnn()
    module.register_forward_hook(print)
    torch.save(module, tmp_path / "m.pt")
    with pytest.raises(ModelRefused, match=r"builtins.print"):
        open_model(str(tmp_path / "m.pt"), Trust())


def test_damaged_files(tmp_path: Path) -> None:
    torch.save(plain_cnn(), tmp_path / "good.pt")
    whole = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("hello\n")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save(plain_cnn(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "oldcut.pt").write_bytes((tmp_path / "old.pt").read_bytes()[:-100])
    safetensors.torch.save_file({"w": torch.zeros(100)}, tmp_path / "w.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-10])
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"\0" * 50_000_000)
    swapped = bytearray(whole)
    swapped[whole.index(b"data/0") + 200] ^= 0xFF  # one bit of a weight
    (tmp_path / "flipped.pt").write_bytes(swapped)
    for name in ("cut.pt", "text.pt", "empty.pt", "oldcut.pt", "cut.safetensors", "bomb.pt", "flipped.pt"):
        with pytest.raises(ModelRefused) as refusal:
            open_model(str(tmp_path / name), Trust(arch=FACTORY))
        assert name in str(refusal.value), name
    with pytest.raises(UsageError, match="no such file"):
        open_model(str(tmp_path / "absent.pt"), Trust())


def test_tensor_larger_than_its_storage(tmp_path: Path) -> None:
    """A pickle may claim any size and stride; reading past the storage must be
    refused."""
    torch.save({"w": torch.arange(4.0)}, tmp_path / "a.pt")
    source = zipfile.ZipFile(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_STORED) as out:
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith("data.pkl"):
                assert b"K\x04\x85" in data  # the size, (4,)
                data = data.replace(b"K\x04\x85", b"K\xff\x85")
            out.writestr(info.filename, data)
    with pytest.raises(ModelRefused, match="does not fit its storage"):
        open_model(str(tmp_path / "b.pt"), Trust(arch=FACTORY))


def test_torchscript_and_archives_are_code(tmp_path: Path) -> None:
    script = torch.jit.trace(plain_cnn().eval(), torch.randn(1, 3, 8, 8))
    torch.jit.save(script, tmp_path / "ts.pt")
    torch.export.save(torch.export.export(plain_cnn().eval(), (torch.randn(1, 3, 8, 8),)), tmp_path / "e.pt2")
    (tmp_path / "x.engine").write_bytes(b"vtrt")
    for name in ("ts.pt", "e.pt2", "x.engine"):
        with pytest.raises(ModelRefused, match="code") as refusal:
            open_model(str(tmp_path / name), Trust())
        assert "--trust-code" in refusal.value.hint
    assert open_model(str(tmp_path / "ts.pt"), Trust(trust_code=True)).module is not None


def test_trust_code_builds_anything(tmp_path: Path, model_pt: Path) -> None:
    source = open_model(str(model_pt), Trust(trust_code=True))
    (tmp_path / "b").mkdir()
    bundle.write(tmp_path / "b", *source.trunk())
    same(bundle.read(tmp_path / "b", Trust(trust_code=True))[0], source.trunk()[0], torch.randn(1, 1, 16, 16))


def test_bundle_names_are_checked(tmp_path: Path, model_pt: Path) -> None:
    source = open_model(str(model_pt), Trust(allow_class=("recipes.networks.*",)))
    structured, made = tmp_path / "s", tmp_path / "f"
    structured.mkdir()
    bundle.write(structured, *source.trunk())
    with pytest.raises(ModelRefused, match=r"--allow-class|outside the allow-list"):
        bundle.read(structured, Trust())
    by_factory = open_model(FACTORY, Trust())
    made.mkdir()
    bundle.write(made, *by_factory.trunk())
    with pytest.raises(ModelRefused, match=r"rebuilt by calling recipes.networks:digits_resnet"):
        bundle.read(made, Trust())
    same(bundle.read(made, Trust(arch=FACTORY))[0], by_factory.trunk()[0], torch.randn(1, 1, 16, 16))
    head = json.loads((made / "model.json").read_text())
    (made / "model.json").write_text(json.dumps({**head, "factory": "os:system"}))
    with pytest.raises(ModelRefused, match="os:system"):
        bundle.read(made, Trust(arch=FACTORY))
    (made / "model.json").write_text(json.dumps({**head, "schema_version": 99}))
    with pytest.raises(ModelRefused, match="newer mlopt"):
        bundle.read(made, Trust(arch=FACTORY))
    assert not list(tmp_path.rglob("*.pkl"))
    assert not list(tmp_path.rglob("*.pt"))


def test_a_bundle_cannot_name_a_function_as_a_class(tmp_path: Path) -> None:
    source = open_model_of(plain_cnn(), tmp_path)
    head = json.loads((source / "model.json").read_text())
    head["structure"]["modules"][0]["class"] = "torch.nn.init.zeros_"
    (source / "model.json").write_text(json.dumps(head))
    with pytest.raises(UsageError):
        bundle.read(source, Trust())


class Mixed(nn.Module):
    """Tied weights, a buffer, a buffer that is not kept, a module used twice, and a
    parameter that is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.norm = nn.BatchNorm1d(8)
        self.again = self.norm
        self.head = nn.Linear(8, 10)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("mask", torch.ones(5), persistent=False)
        self.register_parameter("none", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.norm(self.embed(x).mean(1)))) * self.scale[0]


def small_mixed() -> nn.Module:
    return Mixed()


def counted(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_are_those_of_the_loaded_module(tmp_path: Path) -> None:
    """Without loading: by structure, by factory, by graph, and after a cut that takes a
    block and narrows the rest."""
    allow = Trust(allow_class=(f"{__name__}.*", "recipes.networks.*"))
    residual = digits_resnet(16)
    x = torch.randn(2, 1, 16, 16)
    pruned = mlopt.prune(residual, x, "macs:0.5")
    transformer = digits_vit(32, 3)
    fewer = mlopt.prune(transformer, torch.randn(2, 1, 32, 32), "layers:1")
    nodes = torch.fx.Graph()
    nodes.output(nodes.call_module("0", (nodes.placeholder("x"),)))
    graph = torch.fx.GraphModule(nn.Sequential(nn.BatchNorm1d(4)), nodes)
    cases = {
        "mixed": (Mixed(), adopt(Mixed()).trunk()[1]),
        "stock": (plain_cnn(), adopt(plain_cnn()).trunk()[1]),
        "factory": (Mixed(), bundle.Bundle(FactoryOrigin(f"{__name__}:small_mixed"), ())),
        "graph": (graph, bundle.Bundle(bundle.origin_of(graph), ())),
        "pruned": (pruned.module, adopt(residual).trunk()[1].after(pruned.module, pruned.surgery)),
        "fewer": (fewer.module, adopt(transformer).trunk()[1].after(fewer.module, fewer.surgery)),
    }
    for name, (module, head) in cases.items():
        place = tmp_path / name
        place.mkdir()
        bundle.write(place, module, head)
        sizes = bundle.sizes(place)
        assert sizes == (counted(module), (place / "weights.safetensors").stat().st_size), name
        trust = replace(allow, arch=f"{__name__}:small_mixed") if name == "factory" else allow
        assert sizes.parameters == counted(bundle.read(place, trust)[0]), name


def test_a_factory_bundle_of_the_first_edition_is_loaded_to_be_counted(tmp_path: Path) -> None:
    bundle.write(tmp_path, Mixed(), bundle.Bundle(FactoryOrigin(f"{__name__}:small_mixed"), ()))
    head = json.loads((tmp_path / "model.json").read_text())
    del head["parameters"]
    (tmp_path / "model.json").write_text(json.dumps(head))
    assert bundle.sizes(tmp_path, Trust(arch=f"{__name__}:small_mixed")).parameters == counted(Mixed())
    with pytest.raises(ModelRefused, match="rebuilt by calling"):
        bundle.sizes(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"short")
    with pytest.raises(ModelRefused, match="cannot be read"):
        bundle.sizes(tmp_path, Trust(arch=f"{__name__}:small_mixed"))


@pytest.mark.parametrize(
    "change",
    [
        {"children": {"0": 99}},
        {"children": {"0": 0}},
        {"parameters": None},
        {"training": None, "buffers": {"x": {}}},
    ],
)
def test_altered_structures_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    source = open_model_of(plain_cnn(), tmp_path)
    head = json.loads((source / "model.json").read_text())
    head["structure"]["modules"][0].update(change)
    (source / "model.json").write_text(json.dumps(head))
    with pytest.raises(ModelRefused):
        bundle.sizes(source)


def open_model_of(module: nn.Module, tmp_path: Path) -> Path:
    torch.save(module, tmp_path / "m.pt")
    target = tmp_path / "bundle"
    target.mkdir()
    bundle.write(target, *open_model(str(tmp_path / "m.pt"), Trust()).trunk())
    return target


def test_onnx_data_must_lie_beside_it(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    def model(location: str, length: int = 16) -> Path:
        weight = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
            weight.external_data.add(key=key, value=value)
        x, y = (helper.make_tensor_value_info(name, 1, [4]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
        path = tmp_path / "m.onnx"
        path.write_bytes(
            helper.make_model(
                graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
            ).SerializeToString()
        )
        return path

    data = tmp_path / "w.bin"
    data.write_bytes(b"\0" * 16)
    assert open_model(str(model("w.bin")), Trust()).kind == "onnx"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret").write_bytes(b"\0" * 16)
    os.symlink(tmp_path / "out" / "secret", tmp_path / "soft")
    os.link(tmp_path / "out" / "secret", tmp_path / "hard")
    for location in ("../secret", "/etc/passwd", "soft", "hard", "absent"):
        with pytest.raises(ModelRefused):
            open_model(str(model(location)), Trust())
    with pytest.raises(ModelRefused):
        open_model(str(model("w.bin", length=1 << 20)), Trust())
    (tmp_path / "bad.onnx").write_bytes(b"not protobuf at all")
    with pytest.raises(ModelRefused):
        open_model(str(tmp_path / "bad.onnx"), Trust())
    assert onnx is not None


@pytest.mark.parametrize(
    ("make", "expected"),
    [(plain_cnn, "x=batch,3,224,224"), (lambda: digits_resnet(16), "x=batch,1,28,28"), (lambda: digits_vit(32, 1), "x=batch,1,32,32"), (lambda: nn.Sequential(nn.Linear(12, 4)), "x=batch,12"), (lambda: nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 3)), "x=batch,16:int64")],
)  # fmt: skip
def test_input_is_inferred(make: Any, expected: str) -> None:
    assert str(infer(make())[0]) == expected


def test_input_cannot_be_inferred() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(7, 2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.a(x) + y

    with pytest.raises(UsageError) as error:
        infer(Odd())
    assert "--input" in error.value.hint


@pytest.mark.parametrize("text", ["1,0,3", "1,3,x-y", "1,3:float99", "", "a b=1,2", "-1,3"])
def test_bad_input_specs(text: str) -> None:
    with pytest.raises(UsageError):
        parse_spec(text)


def test_input_specs() -> None:
    spec = parse_spec("ids=batch,128:int64")
    assert (spec.name, spec.dims, spec.dtype) == ("ids", ("batch", 128), "int64")
    assert spec.sizes(3) == (3, 128)
