"""Running artifacts: `opening.open_runtime` in this process, `remote.Worker` in one of
its own."""
