"""The reading side of the warehouse: its destination, its tables, and queries while a consumer writes."""
