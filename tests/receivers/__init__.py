"""The receiver: what it answers, what it keeps, and how its processes start, stop and die."""
