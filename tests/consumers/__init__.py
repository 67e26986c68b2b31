"""Tests of the consumer over a real log and real warehouses."""
