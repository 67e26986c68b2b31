"""Dead letters: which there are, what today's code makes of them, and their second way into the log."""
