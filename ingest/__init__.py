"""What receivers and consumers both know: vendors, events, the log, settings and the command line."""

__version__ = "0.1.0"
