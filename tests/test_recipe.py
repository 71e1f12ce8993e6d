"""The recipe format: what is refused, with its line; and that what is written is read
back the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlopt.artifact import Format
from mlopt.errors import BackendMissing, RecipeError, UnknownBackend, UsageError
from mlopt.recipe.from_options import Wanted, build_recipe
from mlopt.recipe.order import steps_of
from mlopt.recipe.schema import Model, Recipe, load, parse

GOOD = """\
model: {path: model.pt}
passes:
  - pass: prune
    amount: 0.5
  - pass: onnx
"""


def test_round_trip() -> None:
    recipe = parse(GOOD)
    assert parse(recipe.to_yaml()) == recipe
    assert recipe.passes[0].amount == "0.5"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (GOOD + "extra: 1\n", 6, "unknown key"),
        (GOOD.replace("amount", "amuont"), 4, "unknown key"),
        (GOOD.replace("prune", "proon"), 3, "proon"),
        (GOOD + "seed: 1\nseed: 2\n", 7, "given twice"),
        (GOOD.replace("0.5", "0.5\n    round_to: 0"), 5, "greater than 0"),
        ("model: &m {path: a}\npasses: [*m]\n", 1, "anchors"),
        ("model: {path: a}\npasses: []\n", 2, "at least 1"),
        ("- a\n", 1, "mapping"),
        ("model: {path: a\n", 2, "expected"),
        (GOOD.replace("pass: onnx", "pass: onnx\n    opset: high"), 6, "valid integer"),
        ("model: !!python/object/apply:os.system ['true']\npasses: []\n", 1, "could not determine a constructor"),
    ],
)  # fmt: skip
def test_refusals_name_the_line(text: str, line: int, words: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse(text, "r.yaml")
    assert f"r.yaml:{line}:" in error.value.message, error.value.message
    assert words in error.value.message


def test_alias_bomb_is_refused_at_once() -> None:
    bomb = "a: &a [x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)},*{chr(97 + i)}]\n" for i in range(20)
    )
    with pytest.raises(RecipeError, match="aliases"):
        parse(bomb)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError):
        load(tmp_path / "binary.yaml")
    (tmp_path / "huge.yaml").write_text("# " + "x" * 300_000)
    with pytest.raises(RecipeError, match="larger"):
        load(tmp_path / "huge.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(RecipeError, match="empty"):
        load(tmp_path / "empty.yaml")


def recipe_of(*passes: str, data: str = "d.npz") -> Recipe:
    return parse(f"model: {{path: m.pt}}\ndata: {data}\npasses: [{', '.join(passes)}]\n")


@pytest.mark.parametrize(
    ("passes", "words"),
    [
        (("{pass: onnx}", "{pass: prune}"), "after onnx has exported"),
        (("{pass: quantize}",), "an onnx pass before"),
        (("{pass: onnx}", "{pass: tensorrt, source: int8}"), "model.int8-tensorrt.onnx"),
        (("{pass: onnx}", "{pass: onnx}"), "second time"),
        (
            (
                "{pass: onnx}",
                "{pass: quantize, precision: fp16}",
                "{pass: quantize, precision: fp16, target: tensorrt}",
            ),
            "second time",
        ),
    ],
)
def test_passes_that_do_not_fit(passes: tuple[str, ...], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        steps_of(recipe_of(*passes))


def test_training_needs_data_and_onnx_files_are_only_leaves() -> None:
    with pytest.raises(RecipeError, match="needs training data"):
        steps_of(recipe_of("{pass: finetune}", data="null"))
    with pytest.raises(RecipeError, match="ONNX file"):
        steps_of(recipe_of("{pass: prune}"), Format.ONNX)
    assert [step.name for step in steps_of(recipe_of("{pass: quantize}"), Format.ONNX)] == [
        "model.int8-cpu.onnx"
    ]


def test_repeated_passes_have_names_of_their_own() -> None:
    names = [
        step.name
        for step in steps_of(
            recipe_of("{pass: prune}", "{pass: finetune}", "{pass: prune}", "{pass: finetune}")
        )
    ]
    assert names == ["prune", "finetune", "prune-2", "finetune-2"]


def test_compress_builds_the_recipe_that_the_contract_names() -> None:
    recipe = build_recipe(
        Model(path="m.pt"),
        Wanted(
            prune="0.5", distill=3, quantize=("int8", "fp16"), export=("torchscript", "tensorrt"), data="d"
        ),
    )
    made = [step.name for step in steps_of(recipe)]
    assert made == [
        "prune",
        "distill",
        "torchscript",
        "onnx",
        "model.int8-cpu.onnx",
        "model.int8-tensorrt.onnx",
        "model.fp16.onnx",
        "model.rtx.engine",
    ]
    assert recipe.passes[0].amount == "macs:0.5"  # type: ignore[attr-defined]
    for bad in ("1.5", "-1", "x", "layers:0", "w:0.5"):
        with pytest.raises(UsageError):
            build_recipe(Model(path="m.pt"), Wanted(prune=bad))
    with pytest.raises(UnknownBackend) as error:
        build_recipe(Model(path="m.pt"), Wanted(export=("openvino",)))
    assert error.value.exit_code == 4
    assert "pip install" in error.value.hint
    with pytest.raises(UsageError, match="nothing to do"):
        build_recipe(Model(path="m.pt"), Wanted())


@pytest.mark.parametrize(
    ("installed", "made"),
    [
        ((), ["rtx"]),
        (("tensorrt_rtx",), ["rtx"]),
        (("tensorrt",), ["tensorrt"]),
        (("tensorrt", "tensorrt_rtx"), ["rtx", "tensorrt"]),
    ],
)
def test_one_engine_for_each_tensorrt_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], made: list[str]
) -> None:
    monkeypatch.setattr(
        "mlopt.recipe.from_options.find_spec", lambda name: name if name in installed else None
    )
    recipe = build_recipe(Model(path="m.pt"), Wanted(export=("tensorrt",)))
    assert [step.flavour for step in recipe.passes if step.pass_ == "tensorrt"] == made


def test_datacenter_tensorrt_is_named_when_missing() -> None:
    from importlib.util import find_spec

    if find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    with pytest.raises(BackendMissing) as error:
        steps_of(recipe_of("{pass: onnx}", "{pass: tensorrt, flavour: tensorrt}"))
    assert error.value.exit_code == 4
    assert "pip install" in error.value.hint
