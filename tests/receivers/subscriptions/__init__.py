"""Webhook subscriptions: the plan, its execution and the command line, with the simulated vendors."""
