"""The machinery behind the public rooms. Nothing here is public; names may change in any version."""
