"""What a trained method makes: pictures and texts."""
