"""How a model gets in and out: safe loading, inputs, capture, counting, the pickle-free bundle."""
