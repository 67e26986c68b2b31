"""Webhook subscriptions as declared state: what the settings want is made of what each vendor has."""
