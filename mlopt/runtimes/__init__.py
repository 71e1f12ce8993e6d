"""`open_runtime(...)` gives a callable for any artifact; `remote.Worker` gives the same in a process of its own."""
