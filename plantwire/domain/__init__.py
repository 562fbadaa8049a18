"""What we decide: pure rules. Standard library and schemas only; no clock, no I/O."""
