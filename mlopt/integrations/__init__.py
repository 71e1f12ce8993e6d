"""Other people's tools: pytest, Netron."""
