"""One small function an operator: how labels flow through it. Importing this package fills the table `propagation.RULES`."""

from mlopt.pruning.rules import attention, elementwise, indexing, linear, normalisation, recurrent, reduction, reshaping

__all__ = ["attention", "elementwise", "indexing", "linear", "normalisation", "recurrent", "reduction", "reshaping"]
