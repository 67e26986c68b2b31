"""Both logs against one contract, and each against what only it can suffer."""
