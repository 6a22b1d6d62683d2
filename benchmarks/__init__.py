"""Benchmarks of fapilog; see README.md beside this file."""
