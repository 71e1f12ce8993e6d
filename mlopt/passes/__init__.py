"""The passes, thin: a configuration and a call of what is one floor down.
`mlopt/catalog.py` lists them."""
