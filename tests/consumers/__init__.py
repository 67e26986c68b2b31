"""The consumer over a real log and real warehouses."""
