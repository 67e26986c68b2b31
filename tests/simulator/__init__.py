"""Whether the simulator can be believed: its story, its dialects, its deliveries, and its judgement."""
