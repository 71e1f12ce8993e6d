"""The protocol on runtimes that have no clock of their own, and on real sessions; what
the harness itself does to a call."""

from __future__ import annotations

import json
import random
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlopt.artifact import Artifact, Format, TensorSpec
from mlopt.errors import PassFailed
from mlopt.judging.selftest import network
from mlopt.measuring import gpu
from mlopt.measuring.duet import Question, Stopping, run_duet
from mlopt.measuring.environment import Counters, fingerprint, load_between, load_now
from mlopt.measuring.generation import Generation
from mlopt.measuring.profiles import realised_precision
from mlopt.measuring.protocol import LEAST_CALLS, WARMUP_LIMIT_S, Schedule, calls_of, run_generation, warm_up
from mlopt.measuring.rows import bench_rows, histogram
from mlopt.measuring.sampling import Contender, Sampler, Workload, sets_for
from mlopt.records.bench import Conditions, Operator
from mlopt.records.edge import to_json
from mlopt.runtimes.base import Fake, OpenOptions
from mlopt.runtimes.messages import Opened, Ready, Served, ServeJob, Usage
from mlopt.runtimes.onnx_runtime import OnnxRuntime, operators_of
from mlopt.runtimes.remote import Worker, WorkerSpec
from mlopt.runtimes.timing import Slowdown, cache_flush, event_times, host_times
from mlopt.runtimes.worker import read_sets, write_sets


class Scripted:
    """A worker around a fake runtime: blocks move one shared clock by what the script
    says."""

    def __init__(self, name: str, latencies_s: list[float], clock: list[float]) -> None:
        self.name, self.info = name, Opened("fake", "none", "fake", None, 0.5)
        self._runtime, self._clock = Fake(latencies_s), clock
        self.blocks = 0

    def prepare(self, inputs: Path, copies: str = "in", flush: bool = False) -> Ready:
        return Ready(0.25, "host")

    def block(self, calls: int) -> list[float]:
        self.blocks += 1
        out = []
        for _ in range(calls):
            before = self._runtime.clock()
            self._runtime([])
            out.append(self._runtime.clock() - before)
        self._clock[0] += sum(out)
        return out

    def usage(self) -> Usage:
        return Usage(7, None, 0)


def generation_of(workers: list[Any], seconds: float, clock: list[float], least: int = 3) -> Generation:
    return run_generation(
        dict(enumerate(workers)),
        Path("none"),
        Conditions(),
        Schedule(seconds, least),
        random.Random(0),
        lambda: clock[0],
    )


def test_protocol_finds_the_scripted_ratio() -> None:
    clock = [0.0]
    made = generation_of(
        [Scripted("slow", [2e-3, 2.2e-3], clock), Scripted("fast", [1e-3, 1.1e-3], clock)], 2.0, clock
    )
    rows = bench_rows(["slow", "fast"], 1, [made] * 3, Conditions())
    assert rows[0].speedup is None
    assert rows[1].speedup.estimate == pytest.approx(2.0, rel=0.02)
    assert rows[1].speedup.against == "slow"
    assert rows[0].p50_s == pytest.approx(2.1e-3, rel=0.06)
    assert rows[0].cold_start_s == 0.75  # loading and the first answer
    assert len(made.blocks[0]) == len(made.blocks[1]) == 2 * made.rounds


def test_a_generation_keeps_to_its_time_and_to_its_least() -> None:
    clock = [0.0]
    assert generation_of([Scripted("a", [1.0], clock), Scripted("b", [1.0], clock)], 0.1, clock).rounds == 3
    clock = [0.0]
    assert generation_of(
        [Scripted("a", [1e-3], clock), Scripted("b", [1e-3], clock)], 1.0, clock
    ).rounds == pytest.approx(1.0 / (4 * 0.022), abs=2)


def test_a_round_goes_there_and_back() -> None:
    """ABBA or BAAB: what drifts evenly within a round cancels exactly."""
    seen: list[str] = []
    clock = [0.0]

    class Noted(Scripted):
        def block(self, calls: int) -> list[float]:
            seen.append(self.name)
            return super().block(calls)

    made = generation_of([Noted("A", [1e-3], clock), Noted("B", [1e-3], clock)], 2.0, clock)
    rounds = ["".join(seen[-4 * made.rounds :][4 * i : 4 * i + 4]) for i in range(made.rounds)]
    assert set(rounds) == {"ABBA", "BAAB"}


def test_the_first_calls_of_a_block_are_dropped() -> None:
    clock = [0.0]

    class ColdStart(Scripted):
        def block(self, calls: int) -> list[float]:
            clock[0] += 0.05
            return [50e-3, *([5e-3] * (calls - 1))]

    made = generation_of([ColdStart("a", [1.0], clock)], 0.1, clock)
    assert max(block.max() for block in made.blocks[0]) == 5e-3


@pytest.mark.parametrize(
    ("per_call", "kept", "dropped"),
    [(1e-3, 20, 2), (0.4e-3, 50, 4), (1e-6, 2000, 4), (0.03, LEAST_CALLS, 1), (0.06, 2, 0), (1.0, 1, 0)],
)
def test_blocks_have_one_length_in_time(per_call: float, kept: int, dropped: int) -> None:
    assert calls_of(per_call) == (kept, dropped)
    assert calls_of(per_call, flush=True)[0] <= 10


def test_warm_up_ends_when_times_settle_and_says_when_they_do_not() -> None:
    clock = [0.0]
    falling = Scripted("jit", [*np.geomspace(0.1, 1e-3, 20), *[1e-3] * 10_000], clock)
    warm = warm_up(falling, lambda: clock[0])
    assert warm.settled
    assert warm.per_call_s == pytest.approx(1e-3)
    clock = [0.0]
    restless = Scripted("noise", [1e-2 * 1.1**i for i in range(100)], clock)
    warm = warm_up(restless, lambda: clock[0])
    assert not warm.settled
    assert warm.spent_s >= WARMUP_LIMIT_S


class Crashing(Scripted):
    """Dies on its 700th call."""

    calls = 0

    def block(self, calls: int) -> list[float]:
        self.calls += calls
        if self.calls > 700:
            raise PassFailed("the process died")
        return super().block(calls)


def test_a_crash_costs_its_own_row_and_the_baselines_costs_all() -> None:
    clock = [0.0]
    workers = [Scripted("a", [1e-3], clock), Crashing("b", [1e-3], clock), Scripted("c", [5e-4], clock)]
    made = generation_of(workers, 3.0, clock)
    assert list(made.failed) == [1]
    rows = bench_rows(["a", "b", "c"], 1, [made], Conditions())
    assert [row.artifact for row in rows] == ["a", "c"]
    assert rows[1].speedup.estimate == pytest.approx(2.0, rel=0.01)
    with pytest.raises(PassFailed):
        generation_of([Crashing("b", [1e-3], clock), Scripted("c", [5e-4], clock)], 3.0, clock)


def test_a_step_is_measured_against_what_it_was_made_from() -> None:
    clock = [0.0]
    made = generation_of(
        [Scripted("a", [4e-3], clock), Scripted("b", [2e-3], clock), Scripted("c", [1e-3], clock)], 1.0, clock
    )
    rows = bench_rows(["a", "b", "c"], 1, [made], Conditions(), parents={1: 0, 2: 1})
    assert rows[2].speedup.estimate == pytest.approx(4.0)
    assert rows[2].step.estimate == pytest.approx(2.0)
    assert rows[2].step.against == "b"
    assert rows[1].step is None  # made from the baseline: its speed-up is its step


def test_a_row_names_the_device_that_really_ran() -> None:
    """An artifact that cannot run where it was asked to may run elsewhere: the row must
    not say otherwise."""
    clock = [0.0]
    made = generation_of([Scripted("a", [1e-3], clock)], 1.0, clock)
    (row,) = bench_rows(["a"], 1, [made], Conditions(threads=3, device="cuda", copies="out"))
    assert row.device == "none"  # what the fake says of itself
    assert (row.threads, row.copies) == (3, "out")


def test_calls_are_timed_back_to_back_and_inputs_take_turns() -> None:
    seen: list[int] = []
    calls = [lambda i=i: seen.append(i) for i in range(3)]
    times = host_times(calls, 4, 5)
    assert seen == [1, 2, 0, 1, 2]  # goes on where the last block stopped
    assert len(times) == 5
    assert all(ns > 0 for ns in times)


def test_a_flush_runs_before_every_call_and_is_not_timed() -> None:
    order: list[str] = []

    def flush() -> None:
        order.append("flush")
        _ = sum(range(200_000))

    times = host_times([lambda: order.append("call")], 0, 4, flush)
    assert order == ["flush", "call"] * 4
    assert sorted(times)[1] < 1e6  # the flush takes milliseconds
    cache_flush("cpu", 1 << 20)()


def test_the_slowdown_is_what_it_says() -> None:
    """The gate proves itself with it, so it must be true: on a call that spins for a
    fixed time, +10% and one call in ten 1.5x."""
    import time

    def call() -> None:
        end = time.perf_counter_ns() + 200_000
        while time.perf_counter_ns() < end:
            pass

    plain = np.percentile(host_times([call], 0, 200), 10)
    slow = np.percentile(host_times([Slowdown(every=0.1).around(call)], 0, 200), 10)
    assert slow / plain == pytest.approx(1.1, abs=0.02)
    tail = np.array(host_times([Slowdown(share=0.1, factor=1.5).around(call)], 0, 600))
    assert 0.05 < (tail > 1.4 * plain).mean() < 0.2


class FakeCuda:
    """`torch.cuda` with a device that takes as long for each call as it is told."""

    def __init__(self, call_ms: float) -> None:
        self.now, self.call_ms, self.syncs = 0.0, call_ms, 0
        cuda = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = cuda.now

            def elapsed_time(self, other: Event) -> float:
                return other.at - self.at

        self.Event = Event

    def synchronize(self) -> None:
        self.syncs += 1

    def call(self) -> None:
        self.now += self.call_ms


def test_event_times_are_device_time_and_are_checked_against_the_host() -> None:
    cuda = FakeCuda(0.0005)
    assert event_times(cuda, [cuda.call], 0, 4) == [500] * 4
    assert cuda.syncs == 2  # before and after the block, not between calls
    liar = FakeCuda(1e6)
    with pytest.raises(PassFailed, match="passed on the host"):
        event_times(liar, [liar.call], 0, 2)


class FakeNvml(types.ModuleType):
    """NVML of a device that is held back by its power cap."""

    def __init__(self) -> None:
        super().__init__("fake_nvml")
        self.energy = 1000

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:
        return 0x4

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 250_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        self.energy += 5000
        return self.energy

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:
        return {1: 1980, 2: 2619}[kind]


def test_what_nvml_says_and_what_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fake_nvml", FakeNvml())
    device = gpu.Gpu.open(module="fake_nvml")
    assert device is not None
    first, second = device.read(), device.read()
    between = gpu.between(first, second)
    assert between is not None
    assert between.energy_j == 5.0
    assert between.throttled == ("power cap",)
    assert (between.sm_mhz, between.watts) == (1980, 250.0)
    assert between.celsius is None  # this device does not answer that
    assert gpu.Gpu.open(module="no_such_nvml") is None
    assert gpu.between(None, second) is None


def test_a_gpu_is_read_around_every_generation(
    small: tuple[Artifact, Workload], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is scripted, the sessions run on the CPU: what it said is in the rows,
    and its energy is shared among the samples."""
    artifact, workload = small
    with Sampler([Contender("a", artifact)], [workload], Conditions()) as sampler:
        sampler._gpu = gpu.Gpu(FakeNvml(), 0)
        generations = [sampler.generation(0.1)[0] for _ in range(2)]
        together = sampler.throughput(1, 0.2)
    (row,) = bench_rows(["a"], 1, generations, Conditions())
    assert row.gpu.throttled == ("power cap",)
    assert row.gpu.sm_mhz == 1980
    assert 0 < row.load.busy <= 1
    assert together[0].joules_per_sample > 0


def test_load_is_read_where_the_system_says_it() -> None:
    before = load_now()
    _ = sum(range(3_000_000))
    passed = load_between(before, load_now())
    if Path("/proc/stat").exists():
        assert 0 < passed.busy <= 1
    missing = Counters(at=0.0, busy=None, all=0, stolen=None, waited_us=None, mhz=None, load=None)
    assert load_between(missing, replace(missing, at=1.0)).busy is None


def test_enough_inputs_to_miss_a_cache() -> None:
    assert sets_for(3 * 224 * 224 * 4) == 6
    assert sets_for(100) == 16
    assert sets_for(1 << 30) == 2


def test_input_sets_survive_the_file(tmp_path: Path) -> None:
    sets = [[np.arange(3), np.ones((2, 2))], [np.arange(3) + 1, np.zeros((2, 2))]]
    write_sets(tmp_path / "sets.npz", sets)
    back = read_sets(tmp_path / "sets.npz")
    assert [[array.tolist() for array in one] for one in back] == [
        [array.tolist() for array in one] for one in sets
    ]


def test_a_histogram_counts_every_call() -> None:
    found = histogram([1.0] * 98 + [2.0, 50.0])
    assert sum(found.counts) + found.beyond == 100
    assert found.beyond == 1


def test_precision_is_that_of_the_time() -> None:
    def op(precision: str | None, seconds: float) -> Operator:
        return Operator("name", "kind", None, precision, seconds)

    assert realised_precision([op("int8", 3.0), op("fp32", 1.0), op(None, 9.0)]) == "int8"
    assert realised_precision([]) is None
    assert realised_precision([op("fp32", 0.01), op(None, 9.0)]) is None


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Workload]:
    return network("convolutions", tmp_path_factory.mktemp("net"))


def test_real_sessions_in_fresh_processes(small: tuple[Artifact, Workload]) -> None:
    """Two generations are two sets of processes; a slowdown is found; both copies modes
    run."""
    artifact, workload = small
    contenders = [Contender("a", artifact), Contender("b", artifact, slowdown=Slowdown(every=0.5))]
    for copies in ("in", "out"):
        with Sampler(contenders, [workload], Conditions(copies=copies)) as sampler:
            generations = [sampler.generation(0.3)[0] for _ in range(2)]
        rows = bench_rows(["a", "b"], 1, generations, Conditions(copies=copies))
        assert rows[1].speedup.estimate == pytest.approx(1 / 1.5, rel=0.1)
        assert rows[0].copies == copies
        assert rows[0].provider == "CPUExecutionProvider"
        assert rows[0].epochs == 2
        assert rows[0].peak_rss_bytes > 10_000_000


def test_collecting_keeps_to_its_budget_and_starts_afresh(small: tuple[Artifact, Workload]) -> None:
    artifact, workload = small
    with Sampler([Contender("a", artifact)], [workload], Conditions()) as sampler:
        (generations,) = sampler.collect(2.0)
        together = sampler.throughput(2, 0.3)
    assert 2 <= len(generations) <= 10
    assert together[0].sessions == 2
    assert together[0].throughput_per_s > 100
    assert together[0].joules_per_sample is None  # no GPU to ask


def test_an_artifact_that_cannot_be_loaded_is_lost_and_the_baseline_raises(
    small: tuple[Artifact, Workload], tmp_path: Path
) -> None:
    artifact, workload = small
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    junk = Artifact("junk", Format.ONNX, tmp_path, "junk.onnx", "", (TensorSpec("x", (1, 3, 64, 64)),))
    with Sampler([Contender("a", artifact), Contender("junk", junk)], [workload], Conditions()) as sampler:
        sampler.generation(0.1)
        assert "cannot load" in sampler.lost[1].message
        duet = run_duet(sampler, [[Question("latency", limit=0.02)]], Stopping(5.0, 0.01))
        assert duet.error is not None
    with (
        Sampler([Contender("junk", junk), Contender("a", artifact)], [workload], Conditions()) as sampler,
        pytest.raises(PassFailed, match="cannot load"),
    ):
        sampler.generation(0.1)


def test_a_duet_stops_as_soon_as_it_is_sure(small: tuple[Artifact, Workload]) -> None:
    artifact, workload = small
    contenders = [Contender("a", artifact), Contender("b", artifact, slowdown=Slowdown(every=0.5))]
    kept: list[Generation] = []
    with Sampler(contenders, [workload], Conditions()) as sampler:
        questions = [Question("latency", limit=0.025), Question("tail", 95.0, 0.1, guard=True)]
        duet = run_duet(
            sampler, [questions], Stopping(30.0, 0.01, 2), lambda generations: kept.extend(generations)
        )
    assert duet.outcomes[0].verdict == "FAIL"
    assert 2 <= len(kept) <= 8
    assert kept == duet.generations[0]


def test_the_profile_names_real_nodes(small: tuple[Artifact, Workload]) -> None:
    artifact, workload = small
    rows = OnnxRuntime(OpenOptions(artifact.path)).profile(workload.sets[0], 4)
    assert rows[0].kind.endswith("Conv")
    assert rows[0].provider == "CPU"
    assert rows[0].precision == "fp32"
    assert realised_precision(rows) == "fp32"
    assert [row.seconds for row in rows] == sorted((row.seconds for row in rows), reverse=True)


def test_a_profile_of_integers_says_int8() -> None:
    """A node's precision is its narrowest input: an integer convolution takes float
    scales too."""
    event = {"cat": "Node", "name": "c_kernel_time", "dur": 10, "args": {"op_name": "QLinearConv", "provider": "CPUExecutionProvider",
             "input_type_shape": [{"uint8": [1]}, {"float": [1]}, {"int8": [1]}]}}  # fmt: skip
    (row,) = operators_of([event, {**event, "dur": 30}, {"cat": "Session", "name": "model_run"}], 1)
    assert (row.kind, row.precision, row.seconds) == (
        "QLinearConv",
        "int8",
        pytest.approx(30e-6),
    )  # the last call; the first was warm-up


def test_a_worker_says_what_it_runs_and_is_pinned(small: tuple[Artifact, Workload], tmp_path: Path) -> None:
    artifact, workload = small
    write_sets(tmp_path / "in.npz", list(workload.sets))
    with Worker("w", WorkerSpec(artifact.format, artifact.path, pin=True)) as worker:
        assert worker.info.runtime == "onnxruntime"
        assert len(worker.info.cores) == 1
        ready = worker.prepare(tmp_path / "in.npz", flush=True)
        assert ready.clock == "host"
        assert len(worker.block(4)) == 4
        served = worker.ask(ServeJob(0.1), Served)
        assert served.calls > 3
    with (
        pytest.raises(PassFailed, match="CUDA graphs need"),
        Worker("g", WorkerSpec(artifact.format, artifact.path, cuda_graph=True)),
    ):
        pass


def test_the_fingerprint_is_json() -> None:
    assert json.loads(json.dumps(to_json(fingerprint())))["cores"] >= 1
