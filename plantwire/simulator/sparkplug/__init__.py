"""A Sparkplug B 3.0 edge node."""
