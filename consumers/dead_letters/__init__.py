"""Dead letters: reading them, putting them into the log again, and limiting how many come at once."""
