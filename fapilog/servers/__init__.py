"""One adapter per process model."""
