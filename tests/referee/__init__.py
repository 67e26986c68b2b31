"""The referee of completeness: lives at speed, faults, and whether an hour was called complete falsely.

Receivers, log, consumer and warehouse are in memory. Everything else is the product's own code: the vendors'
REST sides, sweeps, the rule, the ledger, and what the consumer makes of records.
"""
