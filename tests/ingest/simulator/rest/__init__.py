"""The simulated vendors' REST sides, asked over HTTP."""
