"""The dashboard's service: pages for people, and an HTTP API for other programs."""
