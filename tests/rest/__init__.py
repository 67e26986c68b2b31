"""Our readers of the vendors' REST sides, against the simulated vendors and against servers that misbehave on purpose."""
