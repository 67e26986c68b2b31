"""All that reads events from the log."""
