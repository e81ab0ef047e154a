"""Methods side by side on one data set and one budget."""
