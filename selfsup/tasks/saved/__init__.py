"""What a folder holds, loaded and checked."""
