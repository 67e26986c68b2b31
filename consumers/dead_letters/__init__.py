"""Dead letters: what the warehouse has of them, how they are put into the log again, and how many may come at once."""
