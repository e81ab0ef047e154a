"""To and from other libraries."""
