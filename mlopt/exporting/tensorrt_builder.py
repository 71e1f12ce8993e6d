"""Builds a TensorRT engine from an ONNX file: `python -m
mlopt.exporting.tensorrt_builder JOB`. One adapter for `tensorrt` and `tensorrt_rtx`.

Runs in a process of its own. Precision lives in the ONNX graph: networks are strongly
typed, as TensorRT 11 and RTX know no other way. Names used here exist in TensorRT 10,
11 and RTX 1.7; what only RTX has is guarded by `hasattr`.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlopt.system.processes import die_with_parent

Profile = dict[str, list[list[int]]]
"""The least, best and largest shape of each input with dynamic dimensions."""


@dataclass(frozen=True)
class EngineJob:
    """What to build: with which package (`tensorrt` or `tensorrt_rtx`), from which
    file, into which."""

    package: str
    onnx: Path
    out: Path
    profile: Profile

    def to_text(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_text(cls, text: str) -> EngineJob:
        data = json.loads(text)
        return cls(data["package"], Path(data["onnx"]), Path(data["out"]), data["profile"])


@dataclass(frozen=True)
class EngineAnswer:
    """What became of it. `version`: of the package; `error`: why there is no engine, or
    empty."""

    version: str = ""
    bytes: int = 0
    error: str = ""

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> EngineAnswer:
        return cls(**json.loads(text))


def make_logger(trt: Any) -> Any:
    """A logger that keeps what was said: setters log an error and carry on, so errors
    are looked for at the end."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append((str(severity).rpartition(".")[2], message))

        def errors(self) -> list[str]:
            # Every API error on a machine without a GPU is followed by a line about the
            # missing driver.
            return [
                text
                for kind, text in self.messages
                if kind in ("ERROR", "INTERNAL_ERROR") and "checkMacros" not in text
            ]

    return Logger()


def build(package: str, onnx: Path, profile: Profile) -> tuple[bytes, str]:
    """(engine bytes, version). Raises `ValueError` with the parser's or builder's
    words."""
    trt = importlib.import_module(package)
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        raise ValueError(
            "; ".join(f"{e.node_name()} [{e.node_operator()}]: {e.desc().splitlines()[0]}" for e in found)
            or "cannot be parsed"
        )
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if hasattr(trt.LayerType, "ATTENTION_INPUT") and layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True  # else fp32 attention has no kernel
    config = builder.create_builder_config()
    if profile:
        ranges = builder.create_optimization_profile()
        for name, (least, best, most) in profile.items():
            ranges.set_shape(name, least, best, most)
        if config.add_optimization_profile(ranges) < 0:
            raise ValueError(f"the profile {profile} was refused: {'; '.join(logger.errors())}")
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError("; ".join(logger.errors()) or "the builder gave no engine and no reason")
    return bytes(engine), str(trt.__version__)


def main() -> None:
    """Answer with one JSON line."""
    die_with_parent()
    job = EngineJob.from_text(sys.argv[1])
    try:
        engine, version = build(job.package, job.onnx, job.profile)
        job.out.write_bytes(engine)
        answer = EngineAnswer(f"{job.package} {version}", len(engine))
    except (ValueError, OSError, ImportError, TypeError) as error:
        answer = EngineAnswer(error=str(error) or type(error).__name__)
    print(answer.to_text())


if __name__ == "__main__":
    main()
