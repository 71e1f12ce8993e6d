"""One run of a recipe: intake, store, steps, record."""
