"""All that appends events to the log."""
