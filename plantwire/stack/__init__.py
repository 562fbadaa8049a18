"""The embedded stack and the `plantwire` command line."""
