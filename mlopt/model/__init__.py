"""How a model comes in and goes out: safe loading, its inputs, its graph, and the
bundle, a directory without pickle."""
