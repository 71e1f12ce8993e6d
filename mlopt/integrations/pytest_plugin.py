"""A pytest plugin: one test for each metric that a policy judges.

    @pytest.mark.mlopt_gate(candidate="new.onnx", baseline="baseline.json", policy="gate.yaml")
    def test_release(mlopt_gate):
        mlopt_gate.check()

Loaded by pytest as soon as mlopt is installed; imports nothing heavy until a test asks for the fixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mlopt.judging.verdict import Row, Verdict

MARK = "mlopt_gate"
OPTIONS = ("candidate", "baseline", "policy", "data", "allow_class", "trust_code", "inputs", "artifact", "out")
_KEY = pytest.StashKey[dict[str, Any]]()


@dataclass
class MetricGate:
    """One metric of a verdict: what the fixture `mlopt_gate` gives. All tests of one mark share one run of the gate."""

    metric: str
    verdict: Verdict

    @property
    def rows(self) -> list[Row]:
        """The rows of this metric: one an artifact and shape."""
        return [row for row in self.verdict.rows if row.metric == self.metric]

    def check(self) -> None:
        """Fails the test unless every row of this metric is PASS, in the words of the gate."""
        from mlopt.report.verdict_words import headline, row_sentence

        __tracebackhide__ = True
        bad = [row for row in self.rows if row.verdict != "PASS"]
        if bad:
            pytest.fail("\n".join(f"{row.verdict}: {row_sentence(row.to_json())}" for row in bad), pytrace=False)
        if not self.rows:
            pytest.fail(f"{self.metric} was not judged: {headline(self.verdict.to_json())}", pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}(candidate, baseline, policy='default', ...): judge an artifact, one test a metric")
    config.stash[_KEY] = {}


def _settings(mark: pytest.Mark) -> dict[str, Any]:
    """The arguments of a mark. Raises `UsageError` for a missing or unknown one: a misspelt one must not be dropped."""
    unknown = sorted(set(mark.kwargs) - set(OPTIONS))
    if unknown or mark.args or "candidate" not in mark.kwargs or "baseline" not in mark.kwargs:
        wrong = f"does not know {', '.join(unknown)}" if unknown else "needs candidate= and baseline="
        raise pytest.UsageError(f"the mark {MARK} {wrong}; it takes {', '.join(OPTIONS)}")
    return dict(mark.kwargs)


def _policy(settings: dict[str, Any]) -> Any:
    from mlopt.judging import policy

    return policy.named(settings.get("policy", "default"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each metric of the policy."""
    if MARK not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker(MARK)
    if mark is None:
        raise pytest.UsageError(f"{metafunc.definition.nodeid} asks for {MARK} and has no mark: @pytest.mark.{MARK}(candidate=..., baseline=...)")
    from mlopt.errors import MloptError

    settings = _settings(mark)
    try:
        metrics = _policy(settings).metrics()
    except MloptError as error:
        raise pytest.UsageError(f"{error.message}; {error.hint}") from error
    metafunc.parametrize(MARK, [(metric, settings) for metric in metrics], ids=metrics, indirect=True)


@pytest.fixture
def mlopt_gate(request: pytest.FixtureRequest) -> MetricGate:
    """One metric of the verdict that the mark `mlopt_gate` asks for; the gate runs once for all of them."""
    from mlopt.api import gate
    from mlopt.errors import MloptError
    from mlopt.model.trust import Trust

    metric, settings = request.param
    done = request.config.stash[_KEY]
    key = repr(sorted(settings.items(), key=lambda item: item[0]))
    if key not in done:
        trust = Trust(allow_class=tuple(settings.get("allow_class", ())), trust_code=settings.get("trust_code", False))
        known = {name: settings[name] for name in ("inputs", "data", "out", "artifact") if name in settings}
        try:
            done[key] = gate(settings["candidate"], settings["baseline"], _policy(settings), trust=trust, **known)
        except MloptError as error:
            done[key] = error
    if isinstance(done[key], MloptError):
        pytest.fail(f"{done[key].message}\nhint: {done[key].hint}", pytrace=False)
    return MetricGate(metric, done[key])
