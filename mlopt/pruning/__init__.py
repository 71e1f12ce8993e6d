"""Structured pruning: coupling (which indices live and die together), importance, budget, surgery, proof."""
