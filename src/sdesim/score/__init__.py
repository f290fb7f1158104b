"""Learning a score: networks, objectives, training."""
