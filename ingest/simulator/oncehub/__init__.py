"""Simulates OnceHub: its webhooks and its REST API."""
