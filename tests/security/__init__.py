"""What strangers, careless settings or other users of the machine may try, and must not get."""
