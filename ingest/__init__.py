"""The part that receivers and consumers share: vendors, events, the log, settings and the command line."""

__version__ = "0.1.0"
