"""Pruning whole networks: budgets, couplings, mending, declining, composing, and the
proof that must be able to fail."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mlopt
from mlopt.errors import ModelRefused, PassFailed, UsageError
from mlopt.model import bundle
from mlopt.model.sources import adopt
from mlopt.model.surgery import Surgery, apply
from mlopt.model.trust import Trust
from mlopt.pruning.proof import Prover
from mlopt.pruning.pruner import Declined, Options, prune_module
from mlopt.pruning.surgery import cuts_of
from recipes.networks import byte_lm, digits_resnet, digits_vit
from tests.conftest import plain_cnn


class DenseBlock(nn.Module):
    """Concatenating CNN with a transition, grouped and depthwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.a, self.b = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(64, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(96)
        self.squeeze = nn.Conv2d(96, 64, 1)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.grouped = nn.Conv2d(64, 64, 3, padding=1, groups=4)
        self.head = nn.Linear(64 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([x, F.relu(self.a(x))], 1)
        x = F.relu(self.norm(torch.cat([x, F.relu(self.b(x))], 1)))
        x = F.relu6(self.depthwise(self.squeeze(x)))
        return self.head(F.adaptive_avg_pool2d(self.grouped(x), 2).flatten(1))


class StockTransformer(nn.Module):
    """`nn.TransformerEncoder`, built on `nn.MultiheadAttention`."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 64)
        layer = nn.TransformerEncoderLayer(
            64, 8, 128, batch_first=batch_first, activation="gelu", norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class MatmulAttention(nn.Module):
    """Attention written out, three projections, sizes from attributes of another
    name."""

    def __init__(self, width: int = 64, heads: int = 8) -> None:
        super().__init__()
        self.n_head, self.d_head = heads, width // heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.norm, self.proj = nn.LayerNorm(width), nn.Linear(width, width)
        self.fc1, self.fc2, self.head = (
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
            nn.Linear(width, 5),
        )

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], self.n_head, self.d_head).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        q, k, v = self.heads(self.q(y)), self.heads(self.k(y)), self.heads(self.v(y))
        a = torch.softmax(q @ k.transpose(-2, -1) / self.d_head**0.5, -1)
        x = x + self.proj((a @ v).transpose(1, 2).flatten(2))
        return self.head((x + self.fc2(F.gelu(self.fc1(x)))).mean(1))


class BakedAttention(nn.Module):
    """Attention that derives its head width from the residual stream: heads cannot be
    cut without rewriting it."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2, self.head = (
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
            nn.Linear(width, 5),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        q, k, v = (
            s.view(b, t, self.heads, c // self.heads).transpose(1, 2) for s in self.qkv(x).split(c, dim=2)
        )
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c))
        return self.head((x + self.fc2(F.gelu(self.fc1(x)))).mean(1))


class Recurrent(nn.Module):
    """The width of an LSTM's state is never cut; what goes in and what comes after
    is."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(50, 64), nn.LSTM(64, 32, 2, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 5)
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embed(ids))[0][:, -1])


class Segmenter(nn.Module):
    """A U-Net in small: transposed convolutions, concatenated skips, a dense output."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.up, self.merge, self.out = (
            nn.ConvTranspose2d(64, 32, 2, 2),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.Conv2d(32, 2, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(F.max_pool2d(a, 2)))
        return self.out(F.relu(self.merge(torch.cat([self.up(b), a], 1))))


class TwoInputs(nn.Module):
    """`nn.Transformer`: self, cross and masked attention, two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body, self.head = (
            nn.Embedding(50, 64),
            nn.Transformer(64, 8, 1, 1, 256, batch_first=True),
            nn.Linear(64, 50),
        )

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(source), self.embed(target)))


ZOO = {
    "plain": (plain_cnn, lambda: torch.randn(2, 3, 16, 16)),
    "residual": (lambda: digits_resnet(32), lambda: torch.randn(2, 1, 16, 16)),
    "vit": (lambda: digits_vit(64, 2), lambda: torch.randn(2, 1, 32, 32)),
    "language": (lambda: byte_lm(64, 2), lambda: torch.randint(0, 256, (2, 64))),
    "stock": (StockTransformer, lambda: torch.randn(2, 7, 12)),
    "sequence first": (lambda: StockTransformer(False), lambda: torch.randn(2, 7, 12)),
    "matmul": (MatmulAttention, lambda: torch.randn(2, 6, 64)),
    "segmentation": (Segmenter, lambda: torch.randn(2, 3, 16, 16)),
    "two inputs": (TwoInputs, lambda: (torch.randint(0, 50, (2, 7)), torch.randint(0, 50, (2, 5)))),
}


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("amount", ["macs:0.5", "params:0.4"])
def test_budget_is_hit_and_proved(name: str, amount: str) -> None:
    make, inputs = ZOO[name]
    module, given = make(), inputs()
    x = given if isinstance(given, tuple) else (given,)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    result = prune_module(module, x, amount)
    report = result.report
    metric, _, share = amount.partition(":")
    reached = getattr(report.after, metric) / getattr(report.before, metric)
    assert abs(reached - (1 - float(share))) <= 0.03, f"{report.note} {report.groups}"
    assert report.rung == "module"
    assert report.proof.holds
    assert report.proof.error < 1e-5
    assert report.proof.moved > 1e-3, "masking changed nothing: the proof is vacuous"
    assert sum(p.numel() for p in result.module.parameters()) == report.after.params
    assert all((g.after % 8 == 0 or g.after == g.before) for g in report.groups)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items()), (
        "the dense module was changed"
    )
    result.module.train()
    out = result.module(*x)
    out.square().mean().backward()
    assert all(p.grad is not None for p in result.module.parameters() if p.requires_grad)
    with torch.no_grad():  # training the one must not touch the other
        for tensor in [*result.module.parameters(), *result.module.buffers()]:
            tensor.zero_()
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items()), (
        "the two share a tensor"
    )


def test_recurrent_layers_lose_units_and_input() -> None:
    module, ids = Recurrent(), torch.randint(0, 50, (2, 7))
    result = prune_module(module, (ids,), "params:0.5")
    lstm = result.module.lstm
    assert isinstance(lstm, nn.LSTM)
    assert lstm.hidden_size == 24
    assert lstm.weight_hh_l1_reverse.shape == (96, 24)
    assert lstm.input_size == result.module.embed.embedding_dim < 64
    assert result.report.proof.holds
    result.module.train()
    result.module(ids).sum().backward()


@pytest.mark.parametrize(
    "norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_computed_weights_are_left_whole_and_the_rest_is_cut(norm) -> None:  # type: ignore[no-untyped-def]
    module = nn.Sequential(norm(nn.Linear(8, 64)), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    result = prune_module(module, (torch.randn(4, 8),), "macs:0.3")
    assert result.report.proof.holds
    assert result.module[0].out_features == 64  # type: ignore[index]
    assert result.module[2].out_features < 64  # type: ignore[index]


def test_a_module_that_cannot_be_copied_says_what_to_do() -> None:
    module = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
    module.lock = threading.Lock()
    with pytest.raises(PassFailed, match="cannot be copied") as error:
        prune_module(module, (torch.randn(4, 8),), "macs:0.3")
    assert "lock" in error.value.message


def test_control_flow_on_data_is_refused_with_advice(capfd: pytest.CaptureFixture[str]) -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            if y.sum() > 0:
                y = y * 2
            return self.b(y)

    with pytest.raises(
        PassFailed,
        match=r"torch\.export cannot capture Branch.*test_pruning\.py:\d+ in forward: if y\.sum\(\) > 0:",
    ) as error:
        prune_module(Branch(), (torch.randn(2, 8),), "0.5")
    assert "torch.where" in error.value.hint
    assert capfd.readouterr().err == "", "torch.export talks to the user's terminal"


def test_whole_heads_go() -> None:
    module = digits_vit(64, 2)
    result = prune_module(module, (torch.randn(2, 1, 32, 32),), "macs:0.5")
    for block in result.module.blocks:  # type: ignore[union-attr]
        assert block.attention.num_heads < 4  # type: ignore[union-attr]
        assert block.attention.head_dim == 16  # type: ignore[union-attr]
        assert block.attention.qkv.out_features == 3 * 16 * block.attention.num_heads  # type: ignore[union-attr]


def test_stock_attention_takes_masks_after_pruning() -> None:
    """The replaced attention must treat masks as the stock one does: compare with the
    masked dense layer under each mask."""
    layer = nn.TransformerEncoderLayer(64, 8, 128, batch_first=True).eval()
    x = torch.randn(2, 6, 64)
    result = prune_module(layer, (x,), "macs:0.5")
    assert result.surgery.modules
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[0, 4:] = True
    causal = nn.Transformer.generate_square_subsequent_mask(6)
    masked = prove_masked_copy(layer, result.surgery)
    with torch.no_grad():
        for options in (
            {},
            {"src_key_padding_mask": padding},
            {"src_mask": causal},
            {"src_mask": causal, "src_key_padding_mask": padding.float() * -1e9},
        ):
            want, got = masked(x, **options), result.module(x, **options)
            assert torch.allclose(want, got, atol=1e-5), options
    attention, dense = result.module.self_attn, masked.self_attn
    out, weights = attention(x, x, x)  # type: ignore[operator]
    want_out, _ = dense(x, x, x)  # type: ignore[operator]
    assert torch.allclose(out, want_out, atol=1e-5)
    assert weights.shape == (2, 6, 6)


def prove_masked_copy(module: nn.Module, plan: Surgery) -> nn.Module:
    import copy

    from mlopt.pruning.masking import masked

    out = copy.deepcopy(module)
    state = dict(out.named_parameters())
    with torch.no_grad():
        for name, keeps in plan.weights.items():
            state[name].copy_(masked(state[name], keeps))
    return out


def test_sizes_that_cannot_be_mended_are_left_alone() -> None:
    module, x = BakedAttention(), torch.randn(2, 6, 64)
    result = prune_module(module, (x,), "macs:0.4")
    assert result.report.rung == "module without resized groups"
    assert result.report.rung_reason
    assert result.module.qkv.out_features == 192  # type: ignore[union-attr]
    assert result.module.fc1.out_features < 256  # type: ignore[union-attr]
    assert abs(result.report.reached - 0.6) <= 0.03


def test_coarse_couplings_reach_what_they_can_and_say_so() -> None:
    result = prune_module(DenseBlock(), (torch.randn(2, 3, 8, 8),), "macs:0.9")
    if abs(result.report.reached - 0.1) > 0.03:
        assert "reached" in result.report.note
    assert result.report.proof.holds


@pytest.mark.parametrize("spread", ["uniform", "global"])
@pytest.mark.parametrize("importance", ["l2", "taylor"])
def test_importance_keeps_what_matters(spread: str, importance: str) -> None:
    """Half the channels of a layer are made useless; they are the ones that must go."""
    module = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    useless = torch.arange(0, 32, 2)
    with torch.no_grad():
        module[0].weight[useless] *= 1e-3
        module[2].weight[:, useless] *= 1e-3
    x, y = torch.randn(64, 4), torch.randint(0, 3, (64,))
    result = prune_module(
        module, (x,), "channels:0.5", Options(importance, spread), [lambda: F.cross_entropy(module(x), y)]
    )
    keeps = result.surgery.weights["0.weight"][0]
    assert keeps == [i for i in range(32) if i % 2]
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize(
    "amount", ["1.5", "-1", "0", "1", "nan", "half", "watts:0.5", "layers:0", "layers:1.5"]
)
def test_bad_amounts(amount: str) -> None:
    with pytest.raises(UsageError):
        mlopt.prune(plain_cnn(), torch.randn(2, 3, 8, 8), amount)


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Linear(8, 3), torch.randn(2, 8)),
        (nn.Sequential(nn.ReLU()), torch.randn(2, 8)),
        (nn.Sequential(nn.Linear(8, 1), nn.LayerNorm(1), nn.Linear(1, 2)), torch.randn(2, 8)),
    ],
)
def test_nothing_to_prune_is_declined_with_a_reason(module: nn.Module, x: torch.Tensor) -> None:
    with pytest.raises(Declined) as declined:
        prune_module(module, (x,), "0.5")
    assert declined.value.reason


def test_two_prunings_compose_and_survive_the_bundle(tmp_path) -> None:  # type: ignore[no-untyped-def]
    module, x = StockTransformer(), torch.randn(2, 7, 12)
    first = prune_module(module, (x,), "macs:0.3")
    second = prune_module(first.module, (x,), "macs:0.3")
    assert second.report.after.macs < first.report.after.macs * 0.75
    (tmp_path / "b").mkdir()
    _, head = adopt(module).trunk()
    bundle.write(tmp_path / "b", second.module, head.cut(first.surgery).cut(second.surgery))
    again = mlopt.load(tmp_path / "b", allow_class=[f"{StockTransformer.__module__}.*"])
    with torch.no_grad():
        assert torch.equal(again(x), second.module.eval()(x))
    assert not any(path.suffix in (".pt", ".pkl") for path in tmp_path.rglob("*"))
    with pytest.raises(ModelRefused):
        bundle.read(tmp_path / "b", Trust())


def test_tied_weights_are_cut_together() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 3)
            self.stem = nn.Linear(4, 32)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(F.relu(self.b(F.relu(self.a(F.relu(self.stem(x)))))))

    result = prune_module(Tied(), (torch.randn(2, 4),), "channels:0.5")
    assert result.module.a.weight is result.module.b.weight  # type: ignore[union-attr]
    assert result.report.proof.holds


def test_the_proof_fails_for_a_wrong_cut() -> None:
    """Cut different channels from the producer and from the consumer: the shapes fit,
    the numbers cannot."""
    module, x = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(8, 4)
    right = Surgery(
        {"0.weight": [list(range(8)), None], "0.bias": [list(range(8))], "2.weight": [None, list(range(8))]}
    )
    wrong = Surgery({**right.weights, "2.weight": [None, list(range(8, 16))]})
    import copy

    prover = Prover(module, right.weights, (x,))
    assert prover.prove(apply(copy.deepcopy(module), right)).holds
    assert not prover.prove(apply(copy.deepcopy(module), wrong)).holds


def test_the_proof_is_not_vacuous_on_zero_weights() -> None:
    module = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    nn.init.zeros_(module[2].weight)
    result = prune_module(module, (torch.randn(8, 4),), "channels:0.5")
    assert "2.weight" in result.report.proof.perturbed
    assert result.report.proof.moved > 1e-3
    assert not result.module[2].weight.any(), "the perturbation must not leak into the result"  # type: ignore[index]


def test_plan_names_every_weight_it_cuts() -> None:
    result = prune_module(digits_resnet(32), (torch.randn(2, 1, 16, 16),), "0.5")
    shapes = {name: tuple(p.shape) for name, p in result.module.named_parameters()}
    for name, keeps in result.surgery.weights.items():
        if name in shapes:
            assert all(
                keep is None or len(keep) == size for keep, size in zip(keeps, shapes[name], strict=True)
            )
    assert cuts_of is not None
    assert Surgery(**result.surgery.to_json()) == result.surgery


def test_training_mode_and_half_precision() -> None:
    module = plain_cnn().train()
    result = prune_module(module, (torch.randn(2, 3, 8, 8),), "0.5")
    assert module.training
    assert result.report.proof.holds
    double = plain_cnn().double()
    assert (
        prune_module(double, (torch.randn(2, 3, 8, 8, dtype=torch.float64),), "0.5").report.proof.error
        < 1e-12
    )
