"""What tests of several folders share: processes, waiting, settings and simulated accounts."""
