"""What vectors give without labels: nearest items and anomalies."""
