"""Webhook URLs as declared state: what the settings want, compared with what each vendor has, and put right."""
