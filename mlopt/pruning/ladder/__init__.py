"""The ladder: ways to give the pruned network back, tried in order until one is
proved."""
