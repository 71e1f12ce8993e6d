"""A pytest plugin: one test for each metric that a policy judges.

    @pytest.mark.mlopt_gate(candidate="new.onnx", baseline="old.onnx", policy="p.yaml")
    def test_release(mlopt_gate):
        mlopt_gate.check()

Loaded by pytest as soon as mlopt is installed; imports nothing heavy until a test asks
for the fixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mlopt.errors import MloptError
    from mlopt.judging.policy import Policy
    from mlopt.judging.verdict import Verdict
    from mlopt.records.gate import GateRow

MARK = "mlopt_gate"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of a mark: those of `mlopt.gate`, with what may be opened spelt
    out."""

    candidate: Any
    baseline: Any
    policy: Any = "default"
    data: Any = None
    allow_class: tuple[str, ...] = ()
    trust_code: bool = False
    inputs: Any = None
    artifact: str | None = None
    out: Any = None

    def read_policy(self) -> Policy:
        """Raises `RecipeError` or `UsageError`."""
        from mlopt.judging import policy

        return policy.named(self.policy)

    def run(self) -> Verdict | MloptError:
        """The verdict of the gate, or why there is none."""
        from mlopt.api import gate
        from mlopt.errors import MloptError
        from mlopt.model.trust import Trust

        trust = Trust(allow_class=tuple(self.allow_class), trust_code=self.trust_code)
        try:
            return gate(
                self.candidate,
                self.baseline,
                self.read_policy(),
                inputs=self.inputs,
                data=self.data,
                out=self.out,
                trust=trust,
                artifact=self.artifact,
            )
        except MloptError as error:
            return error


OPTIONS = tuple(Settings.__dataclass_fields__)
_DONE = pytest.StashKey[dict[str, "Verdict | MloptError"]]()


@dataclass
class MetricGate:
    """One metric of a verdict: what the fixture `mlopt_gate` gives. All tests of one
    mark share one run of the gate."""

    metric: str
    verdict: Verdict

    @property
    def rows(self) -> list[GateRow]:
        """The rows of this metric: one an artifact and shape."""
        return [row for row in self.verdict.rows if row.metric == self.metric]

    def check(self) -> None:
        """Fails the test unless every row of this metric is PASS, in the words of the
        gate."""
        from mlopt.report.verdict_words import headline, row_sentence

        __tracebackhide__ = True
        bad = [row for row in self.rows if row.verdict != "PASS"]
        if bad:
            pytest.fail("\n".join(f"{row.verdict}: {row_sentence(row)}" for row in bad), pytrace=False)
        if not self.rows:
            pytest.fail(f"{self.metric} was not judged: {headline(self.verdict.record())}", pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARK}(candidate, baseline, policy='default', ...): judge an artifact, one test a metric"
    )
    config.stash[_DONE] = {}


def _settings(mark: pytest.Mark) -> Settings:
    """The arguments of a mark. Raises `UsageError` for a missing or unknown one: a
    misspelt one must not be dropped."""
    unknown = sorted(set(mark.kwargs) - set(OPTIONS))
    if unknown or mark.args or "candidate" not in mark.kwargs or "baseline" not in mark.kwargs:
        wrong = f"does not know {', '.join(unknown)}" if unknown else "needs candidate= and baseline="
        raise pytest.UsageError(f"the mark {MARK} {wrong}; it takes {', '.join(OPTIONS)}")
    return Settings(**mark.kwargs)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each metric of the policy."""
    if MARK not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker(MARK)
    if mark is None:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid} asks for {MARK} and has no mark:"
            f" @pytest.mark.{MARK}(candidate=..., baseline=...)"
        )
    from mlopt.errors import MloptError

    settings = _settings(mark)
    try:
        metrics = settings.read_policy().metrics()
    except MloptError as error:
        raise pytest.UsageError(f"{error.message}; {error.hint}") from error
    metafunc.parametrize(MARK, [(metric, settings) for metric in metrics], ids=metrics, indirect=True)


@pytest.fixture
def mlopt_gate(request: pytest.FixtureRequest) -> MetricGate:
    """One metric of the verdict that the mark `mlopt_gate` asks for; the gate runs once
    for all of them."""
    from mlopt.errors import MloptError

    metric, settings = request.param
    done = request.config.stash[_DONE]
    key = repr(settings)
    if key not in done:
        done[key] = settings.run()
    found = done[key]
    if isinstance(found, MloptError):
        pytest.fail(f"{found.message}\nhint: {found.hint}", pytrace=False)
    return MetricGate(metric, found)
