"""Tests of the product's folder of the same name."""
