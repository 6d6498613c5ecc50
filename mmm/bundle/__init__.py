"""What ships: one checksummed folder that predicts."""
