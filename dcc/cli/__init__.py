"""The `dcc` command: a thin program over `dcc.Client`, as anybody could write it."""
