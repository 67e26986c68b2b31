"""What a stranger, a careless setting or another user of the machine may try, and must not get."""
