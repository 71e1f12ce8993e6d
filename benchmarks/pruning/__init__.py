"""Pruning beside torch-pruning: what each can prune, what accuracy is left, and how
long planning takes."""
