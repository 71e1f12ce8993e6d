"""What a pass may use besides its input; the same for all passes of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from mlopt.artifact import Artifact
from mlopt.data.samples import samples_for
from mlopt.data.sets import DataSet
from mlopt.errors import PassFailed
from mlopt.model import bundle
from mlopt.model.bundle import Bundle
from mlopt.model.tensors import relink
from mlopt.model.trust import Trust
from mlopt.pruning.copies import share_copy


class Modules:
    """Modules loaded from bundles: the last one is kept, so that the passes and checks
    of one artifact load it once.

    Only one, because a large model must not stay in memory for all passes.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._last: tuple[str, nn.Module, Bundle] | None = None

    def borrow(self, artifact: Artifact) -> tuple[nn.Module, Bundle]:
        """The module in evaluation mode, and its bundle, to be looked at and not
        changed. Raises `ModelRefused`."""
        if self._last is None or self._last[0] != artifact.digest or not artifact.digest:
            self._last = None  # its memory first
            module, head = bundle.read(artifact.path, self._trust)
            self._last = artifact.digest, module.eval(), head
        return self._last[1:]

    def take(self, artifact: Artifact) -> tuple[nn.Module, Bundle]:
        """The same for a caller that changes the module: it is his alone."""
        taken = self.borrow(artifact)
        self._last = None
        return taken

    def copy(self, artifact: Artifact) -> nn.Module:
        """A copy to be run, its tensors shared: what a forward keeps (a mask, a
        counter) stays in the copy. A module that cannot be copied is loaded once
        more."""
        module, _ = self.borrow(artifact)
        try:
            made = share_copy(module)
            relink(made)
            return made
        except PassFailed:
            return bundle.read(artifact.path, self._trust)[0].eval()

    @contextlib.contextmanager
    def frozen(self, artifact: Artifact) -> Iterator[nn.Module]:
        """A copy whose parameters need no gradients for as long: what exporters
        take."""
        module = self.copy(artifact)
        learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
        try:
            yield module.requires_grad_(False)
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)

    def forget(self) -> None:
        """Let the last module go."""
        self._last = None


@dataclass(frozen=True)
class RunContext:
    """What a pass may use. `data_spec`: the data as other processes can load it, None
    for live data."""

    data: DataSet
    data_spec: str | None
    trust: Trust
    seed: int
    device: str
    nproc: int
    threads: int
    dense: Artifact
    """The module as it came in, or as it was trained: the teacher, and what everything
    is compared with."""
    modules: Modules
    say: Callable[[str], None] = lambda line: None

    def samples(self, artifact: Artifact, count: int) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
        """Real or synthetic example inputs: `samples_for`."""
        return samples_for(artifact, count, self.data, self.seed)
