"""Real node processes: one file for each situation."""
