"""Replay: a right warehouse stays as it is, a wrong or lost one comes right, and live traffic goes before."""
