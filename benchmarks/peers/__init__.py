"""dcc beside the clients and servers that a Python service would pick, in one run."""
