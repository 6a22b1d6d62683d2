"""What `fapilog doctor` looks at, one subject in each module."""
