"""Sparkplug B 3.0 host application: edge nodes' births, data and deaths → frames."""
