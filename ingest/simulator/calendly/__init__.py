"""Simulates Calendly: its webhooks and its REST API."""
