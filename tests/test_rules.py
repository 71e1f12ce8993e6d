"""The coupling algebra, rule by rule: for random shapes, masking a label's indices and
deleting them give the same result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from mlopt.model.capture import capture
from mlopt.pruning.cut import Cut
from mlopt.pruning.groups import find_groups
from mlopt.pruning.labels import Labels
from mlopt.pruning.ladder.attempts import Proved
from mlopt.pruning.ladder.in_graph import in_graph
from mlopt.pruning.ladder.in_module import in_module
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.pruner import Options, Pruner, analyse
from mlopt.pruning.rule_table import RULES
from mlopt.pruning.rules import has_rule
from mlopt.pruning.widths import Widths, choose

small = st.integers(2, 4)


class Net(nn.Module):
    """Parameters by name, and a function of them."""

    def __init__(self, body: Callable[[Any, torch.Tensor], torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def prove_random_cut(
    module: nn.Module,
    x: torch.Tensor,
    data: st.DataObject,
    least_groups: int = 1,
    cut_statistics: bool = False,
) -> None:
    """Cut random members of random groups; the pruned module and the rewritten graph
    must equal the masked one."""
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    pruner = Pruner(module.eval(), (x,), Options())
    found = pruner.analysis(cut_statistics)
    assert len(found.groups) >= least_groups, f"only {len(found.groups)} groups in {module}"
    scores = [np.array([data.draw(st.floats(0.1, 1)) for _ in group.classes]) for group in found.groups]
    wanted = np.array([data.draw(st.integers(1, len(group.classes))) for group in found.groups])
    dropped = choose(found.groups, scores, Widths(wanted, 0, 0, 0, wanted.astype(float)), found.flow)
    if not dropped.any():
        return
    kept = np.array([np.count_nonzero(~dropped[group.classes]) for group in found.groups], dtype=float)
    graph = in_graph(pruner.dense, Cut(found.flow, dropped))
    assert isinstance(graph, Proved), graph
    assert graph.proof.holds
    assert torch.isfinite(graph.module(torch.cat([x, x]))).all()  # any batch size
    outcome = in_module(pruner.dense, Cut(found.flow, dropped))
    assert isinstance(outcome, Proved), outcome
    assert outcome.proof.holds
    # What the counter promised is what came out.
    real = sum(p.numel() for p in outcome.module.parameters())
    assert (
        found.counter().of_mask(dropped, kept).params
        == real
        == sum(p.numel() for p in graph.module.parameters())
    )


Case = Callable[[Callable[[Any], int]], tuple[nn.Module, torch.Tensor]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


@case
def chain_of_linears(n: Any) -> tuple[nn.Module, torch.Tensor]:
    a, b = n(small), 2 * n(small)
    return nn.Sequential(nn.Linear(a, b), nn.GELU(), nn.Linear(b, 3)), torch.randn(2, a)


@case
def residual_of_convolutions(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    return Net(
        lambda m, x: m.c((y := m.a(x)) + F.relu(m.norm(m.b(y)))),
        a=nn.Conv2d(2, c, 1),
        b=nn.Conv2d(c, c, 3, padding=1),
        norm=nn.BatchNorm2d(c),
        c=nn.Conv2d(c, 3, 1),
    ), torch.randn(2, 2, 4, 4)


@case
def concatenation(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c, d = 2 * n(small), n(small)
    return Net(
        lambda m, x: m.c(torch.cat([y := m.a(x), m.b(y)], 1)),
        a=nn.Conv2d(2, c, 1),
        b=nn.Conv2d(c, d, 1),
        c=nn.Conv2d(c + d, 3, 1),
    ), torch.randn(1, 2, 3, 3)


@case
def depthwise(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c, m_ = 2 * n(small), n(st.integers(1, 2))
    return Net(
        lambda m, x: m.c(F.relu6(m.b(m.a(x)))),
        a=nn.Conv2d(2, c, 1),
        b=nn.Conv2d(c, c * m_, 3, padding=1, groups=c),
        c=nn.Conv2d(c * m_, 3, 1),
    ), torch.randn(1, 2, 4, 4)


@case
def grouped(n: Any) -> tuple[nn.Module, torch.Tensor]:
    g, c, d = 2, 2 * n(small), 2 * n(small)
    return Net(
        lambda m, x: m.c(m.b(m.a(x))),
        a=nn.Conv2d(2, g * c, 1),
        b=nn.Conv2d(g * c, g * d, 3, groups=g),
        c=nn.Conv2d(g * d, 3, 1),
    ), torch.randn(1, 2, 4, 4)


@case
def transposed(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    return Net(
        lambda m, x: m.c(m.b(m.a(x))),
        a=nn.Conv2d(2, c, 1),
        b=nn.ConvTranspose2d(c, 2 * c, 2, 2),
        c=nn.Conv2d(2 * c, 3, 1),
    ), torch.randn(1, 2, 4, 4)


@case
def grouped_transposed(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    return Net(
        lambda m, x: m.c(m.b(m.a(x))),
        a=nn.Conv2d(2, 2 * c, 1),
        b=nn.ConvTranspose2d(2 * c, 2 * c, 2, 2, groups=2),
        c=nn.Conv2d(2 * c, 3, 1),
    ), torch.randn(1, 2, 4, 4)


@case
def one_dimensional(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    return Net(
        lambda m, x: m.c(F.max_pool1d(m.a(x), 2).flatten(1)),
        a=nn.Conv1d(2, c, 3, padding=1),
        c=nn.Linear(c * 4, 3),
    ), torch.randn(2, 2, 8)


@case
def squeeze_and_excite(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c, r = 2 * n(small), n(small)
    return Net(
        lambda m, x: m.c((y := m.a(x)) * torch.sigmoid(m.up(F.silu(m.down(F.adaptive_avg_pool2d(y, 1)))))),
        a=nn.Conv2d(2, c, 1), down=nn.Conv2d(c, r, 1), up=nn.Conv2d(r, c, 1), c=nn.Conv2d(c, 3, 1),
    ), torch.randn(2, 2, 4, 4)  # fmt: skip


@case
def group_normalisation(n: Any) -> tuple[nn.Module, torch.Tensor]:
    g, per = n(small), n(small)
    return nn.Sequential(
        nn.Conv2d(2, g * per, 1), nn.GroupNorm(g, g * per), nn.Conv2d(g * per, 3, 1)
    ), torch.randn(2, 2, 4, 4)


@case
def instance_normalisation(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    return nn.Sequential(
        nn.Conv2d(2, c, 1), nn.InstanceNorm2d(c, affine=True), nn.Conv2d(c, 3, 1)
    ), torch.randn(2, 2, 4, 4)


@case
def channel_shuffle(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)

    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        b, _, h, w = y.shape
        return m.c(y.view(b, 2, -1, h, w).transpose(1, 2).reshape(b, -1, h, w))

    return Net(body, a=nn.Conv2d(2, 2 * c, 1), c=nn.Conv2d(2 * c, 3, 1)), torch.randn(2, 2, 3, 3)


@case
def chunked_gate(n: Any) -> tuple[nn.Module, torch.Tensor]:
    d = 2 * n(small)
    return Net(
        lambda m, x: m.c(F.silu((p := m.a(x).chunk(2, -1))[0]) * p[1]),
        a=nn.Linear(4, 2 * d),
        c=nn.Linear(d, 3),
    ), torch.randn(2, 4)


@case
def token_mixing(n: Any) -> tuple[nn.Module, torch.Tensor]:
    t, h = n(small), 2 * n(small)
    return Net(
        lambda m, x: x + m.b(F.gelu(m.a(x.transpose(1, 2)))).transpose(1, 2),
        a=nn.Linear(t, h),
        b=nn.Linear(h, t),
    ), torch.randn(2, t, 3)


@case
def flattened(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    return nn.Sequential(nn.Conv2d(2, c, 1), nn.ReLU(), nn.Flatten(), nn.Linear(c * 9, 3)), torch.randn(
        2, 2, 3, 3
    )


@case
def bare_matmul(n: Any) -> tuple[nn.Module, torch.Tensor]:
    d = 2 * n(small)

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.scale, self.v = (
                nn.Parameter(torch.randn(4, d)),
                nn.Parameter(torch.randn(d)),
                nn.Parameter(torch.randn(d, 3)),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (F.elu(x @ self.w) * self.scale) @ self.v

    return Bare(), torch.randn(2, 4)


@case
def resized_and_padded(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    return Net(
        lambda m, x: m.c(F.pad(F.interpolate(m.a(x), scale_factor=2, mode="bilinear"), (1, 1, 1, 1))),
        a=nn.Conv2d(2, c, 1),
        c=nn.Conv2d(c, 3, 3),
    ), torch.randn(1, 2, 4, 4)


@case
def pixel_shuffle(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = n(small)
    return Net(
        lambda m, x: m.c(F.pixel_shuffle(m.a(x), 2)), a=nn.Conv2d(2, 4 * c, 1), c=nn.Conv2d(c, 3, 1)
    ), torch.randn(1, 2, 3, 3)


@case
def slope_a_channel(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    return nn.Sequential(nn.Conv2d(2, c, 1), nn.PReLU(c), nn.Conv2d(c, 3, 1), nn.PReLU()), torch.randn(
        1, 2, 3, 3
    )


@case
def embedding(n: Any) -> tuple[nn.Module, torch.Tensor]:
    d = 2 * n(small)
    return nn.Sequential(nn.Embedding(7, d), nn.ReLU(), nn.Linear(d, 3)), torch.randint(0, 7, (2, 5))


@case
def weight_standardised(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c, d = 2 * n(small), 2 * n(small)

    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        w = m.b.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True) + 1e-3).sqrt()
        return m.c(F.relu(F.conv2d(m.a(x), w, m.b.bias)))

    return Net(body, a=nn.Conv2d(2, c, 1), b=nn.Conv2d(c, d, 1), c=nn.Conv2d(d, 3, 1)), torch.randn(
        1, 2, 4, 4
    )


@case
def slices_of_channels(n: Any) -> tuple[nn.Module, torch.Tensor]:
    a, b = n(small), 2 * n(small)

    class Slices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.split = a
            self.wide, self.first, self.rest = nn.Conv2d(2, a + b, 1), nn.Conv2d(a, 3, 1), nn.Conv2d(b, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.wide(x)
            return self.first(y[:, : self.split]) + self.rest(y[:, self.split :])

    return Slices(), torch.randn(1, 2, 3, 3)


@case
def windows(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    return Net(
        lambda m, x: m.c(F.unfold(m.a(x), 2)), a=nn.Conv2d(2, c, 1), c=nn.Conv1d(4 * c, 3, 1)
    ), torch.randn(1, 2, 3, 3)


@case
def gated(n: Any) -> tuple[nn.Module, torch.Tensor]:
    d = 2 * n(small)
    return Net(lambda m, x: m.c(F.glu(m.a(x))), a=nn.Linear(4, 2 * d), c=nn.Linear(d, 3)), torch.randn(2, 4)


@case
def recurrent_lstm(n: Any) -> tuple[nn.Module, torch.Tensor]:
    h, both = 2 * n(small), n(st.booleans())
    lstm = nn.LSTM(4, h, num_layers=2, batch_first=True, bidirectional=both)
    return Net(
        lambda m, x: m.c(m.lstm(m.a(x))[0][:, -1]),
        a=nn.Linear(3, 4),
        lstm=lstm,
        c=nn.Linear(h * (1 + both), 3),
    ), torch.randn(2, 5, 3)


@case
def recurrent_gru(n: Any) -> tuple[nn.Module, torch.Tensor]:
    h = 2 * n(small)
    return Net(
        lambda m, x: m.c(m.gru(x)[0]), gru=nn.GRU(3, h, batch_first=True), c=nn.Linear(h, 3)
    ), torch.randn(2, 5, 3)


@case
def grouped_queries(n: Any) -> tuple[nn.Module, torch.Tensor]:
    kv, w = 2 * n(st.integers(1, 2)), 4

    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(6, 2 * kv * w), nn.Linear(6, kv * w), nn.Linear(6, kv * w)
            self.o = nn.Linear(2 * kv * w, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, t, _ = x.shape
            q, k, v = (layer(x).view(b, t, -1, w).transpose(1, 2) for layer in (self.q, self.k, self.v))
            k, v = (y[:, :, None].expand(b, y.shape[1], 2, t, w).reshape(b, -1, t, w) for y in (k, v))
            return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, -1))

    return Grouped(), torch.randn(2, 5, 6)


BETWEEN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "permuted": lambda y: y.permute(0, 2, 1).permute(0, 2, 1),
    "squeezed": lambda y: y.unsqueeze(1).squeeze(1),
    "unfolded": lambda y: y.unfold(1, 2, 1).sum(-1),
    "unbound": lambda y: sum(y.unbind(1)),  # type: ignore[arg-type,return-value]
    "stacked": lambda y: torch.stack([y, torch.tanh(y)], 1).sum(1),
    "picked": lambda y: y[:, [2, 0]] + y.index_select(1, torch.tensor([1, 1])),
    "copied": lambda y: torch.empty_like(y).copy_(y) + y.clone(),
    "converted": lambda y: y.to(torch.float64).to(torch.float32),
    "counted": lambda y: y * torch.arange(3.0)[:, None],
    "scattered": lambda y: torch.slice_scatter(y, y[:, :1] * 2, 1, 1, 2),
    "repeated": lambda y: y.repeat(1, 2, 1),
    "dropped": lambda y: torch.native_dropout(y, 0.5, False)[0],
    "turned": lambda y: y.flatten(0, 1).t().t(),
    "chosen": lambda y: torch.where(y > 0, y, -y).masked_fill(y > 9, 0.0),
    "larger": lambda y: torch.maximum(y, torch.max(y, -y)),
}
"""Operators between two linear layers, on (2, 3, channels)."""


def _between(name: str) -> Case:
    def make(n: Any) -> tuple[nn.Module, torch.Tensor]:
        d = 2 * n(small)
        return Net(
            lambda m, x: m.c(BETWEEN[name](m.a(x))), a=nn.Linear(4, d), c=nn.Linear(d, 3)
        ), torch.randn(2, 3, 4)

    return make


CASES.update({name: _between(name) for name in BETWEEN})


@case
def bare_convolution(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    plain = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    return Net(
        lambda m, x: m.c(torch.convolution(m.a(x), m.b.weight, m.b.bias, *plain)),
        a=nn.Conv2d(2, c, 1),
        b=nn.Conv2d(c, c, 3),
        c=nn.Conv2d(c, 3, 1),
    ), torch.randn(1, 2, 4, 4)


@case
def folded(n: Any) -> tuple[nn.Module, torch.Tensor]:
    c = 2 * n(small)
    return Net(
        lambda m, x: m.c(F.fold(F.unfold(m.a(x), 2), (4, 4), 2)), a=nn.Conv2d(2, c, 1), c=nn.Conv2d(c, 3, 1)
    ), torch.randn(1, 2, 4, 4)


@case
def bias_and_product(n: Any) -> tuple[nn.Module, torch.Tensor]:
    d = 2 * n(small)
    return Net(
        lambda m, x: m.c(torch.addmm(m.a.bias, x, m.a.weight.t())), a=nn.Linear(4, d), c=nn.Linear(d, 3)
    ), torch.randn(2, 4)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_masking_equals_deleting(name: str, data: st.DataObject) -> None:
    module, x = CASES[name](data.draw)
    prove_random_cut(module, x, data)


class Standardised(nn.Conv2d):
    """As in NFNet: the filter is normalised over its fan-in by a batch norm in training
    mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None, training=True, momentum=0.0, eps=1e-6
        )
        return F.conv2d(x, w.reshape_as(self.weight), self.bias)


class GlobalResponse(nn.Module):
    """Global response normalisation (ConvNeXt V2): every channel is divided by the mean
    of all channels' norms."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        g = x.norm(p=2, dim=(2, 3), keepdim=True)
        return x + x * (g / (g.mean(1, keepdim=True) + 1e-6)) * self.weight.view(1, -1, 1, 1)


STATISTICS: dict[str, Callable[[int], tuple[nn.Module, torch.Tensor]]] = {
    "layer_norm": lambda c: (
        nn.Sequential(nn.Linear(4, c), nn.LayerNorm(c), nn.Linear(c, 3)),
        torch.randn(2, 4),
    ),
    "rms_norm": lambda c: (nn.Sequential(nn.Linear(4, c), nn.RMSNorm(c), nn.Linear(c, 3)), torch.randn(2, 4)),
    "group_norm": lambda c: (
        nn.Sequential(nn.Conv2d(2, 2 * c, 1), nn.GroupNorm(2, 2 * c), nn.Conv2d(2 * c, 3, 1)),
        torch.randn(2, 2, 4, 4),
    ),
    "softmax": lambda c: (
        Net(lambda m, x: m.c(torch.softmax(m.a(x), -1)), a=nn.Linear(4, c), c=nn.Linear(c, 3)),
        torch.randn(2, 4),
    ),
    "mean": lambda c: (
        Net(lambda m, x: m.c((y := m.a(x)) - y.mean(-1, keepdim=True)), a=nn.Linear(4, c), c=nn.Linear(c, 3)),
        torch.randn(2, 4),
    ),
    "weight_standardised": lambda c: (
        nn.Sequential(nn.Conv2d(2, c, 1), Standardised(c, c, 3), nn.Conv2d(c, 3, 1)),
        torch.randn(1, 2, 5, 5),
    ),
    "global_response": lambda c: (
        nn.Sequential(nn.Conv2d(2, c, 1), GlobalResponse(c), nn.Conv2d(c, 3, 1)),
        torch.randn(1, 2, 5, 5),
    ),
}


@pytest.mark.parametrize("name", STATISTICS)
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_statistics_are_taken_over_what_stays(name: str, data: st.DataObject) -> None:
    """What a normalisation averages over may be cut: the reference then averages over
    what stays."""
    module, x = STATISTICS[name](2 * data.draw(st.integers(2, 4)))
    assert Pruner(module.eval(), (x,)).analysis().groups == [] or name in (
        "group_norm",
        "weight_standardised",
    )
    prove_random_cut(module, x, data, cut_statistics=True)


def test_every_rule_is_in_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """`experts` (a grouped matrix product in half precision, or a library's own
    operator) is proved by Mixtral in the zoo."""
    called = set()
    functions = set(RULES.values())
    for name, function in list(RULES.items()):

        def watched(flow: Propagation, node: torch.fx.Node, function: Any = function) -> Any:
            called.add(function)
            return function(flow, node)

        monkeypatch.setitem(RULES, name, watched)
    fixed = lambda strategy: True if strategy is not small and "bool" in repr(strategy) else 2  # noqa: E731
    for make in CASES.values():
        module, x = make(fixed)
        Propagation(capture(module.eval(), (x,), keep=has_rule))
    for make_statistics in STATISTICS.values():
        module, x = make_statistics(4)
        Propagation(capture(module.eval(), (x,), keep=has_rule), {}, True)
    assert sorted(function.__name__ for function in functions - called) == ["experts"]


def test_unknown_operator_pins_what_it_touches() -> None:
    module = Net(
        lambda m, x: m.c(torch.cumsum(torch.sort(m.a(x), -1)[0], -1)), a=nn.Linear(4, 16), c=nn.Linear(16, 3)
    )
    found = analyse(module.eval(), (torch.randn(2, 4),))
    assert found.groups == []
    assert any("sort" in name for name in found.flow.unknown)


@pytest.mark.parametrize(
    "body",
    [
        lambda y: F.layer_norm(y, (16,)),
        lambda y: torch.softmax(y, -1),
        lambda y: y / y.norm(dim=-1, keepdim=True),
        lambda y: y - y.mean(-1, keepdim=True),
    ],
)
def test_statistics_over_channels_pin_them(body: Callable[[torch.Tensor], torch.Tensor]) -> None:
    module = Net(lambda m, x: m.c(body(m.a(x))), a=nn.Linear(4, 16), c=nn.Linear(16, 3))
    assert analyse(module.eval(), (torch.randn(2, 4),)).groups == []


def test_every_rule_is_a_function_with_its_own_entry() -> None:
    assert len(RULES) > 100
    assert all(callable(function) for function in RULES.values())


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_union_find_agrees_with_graph_components(pairs: list[tuple[int, int]]) -> None:
    import networkx

    labels = Labels()
    labels.fresh(30)
    graph = networkx.Graph()
    graph.add_nodes_from(range(31))
    graph.add_edges_from(pairs)
    for start in range(0, len(pairs), 7):  # in batches, as rules do
        batch = np.array(pairs[start : start + 7], dtype=np.int64).reshape(-1, 2)
        labels.union(batch[:, 0], batch[:, 1])
    roots = labels.find(np.arange(31))
    for component in networkx.connected_components(graph):
        assert {int(roots[i]) for i in component} == {min(component)}


def test_groups_can_be_pinned_from_outside() -> None:
    found = analyse(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)), (torch.randn(2, 4),))
    assert len(found.groups) == 1
    assert find_groups(found.flow, set(found.groups[0].classes.tolist())) == []
