"""What a few labels give: fine-tuning, probes, benchmarks, learning in context."""
