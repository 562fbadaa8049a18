"""Online anomaly scores of single metrics: how unusual a value is, measured against the metric's own past."""
