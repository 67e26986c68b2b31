"""Registering webhook URLs: the plan, what carries it out, and the command line, against the simulated vendors."""
