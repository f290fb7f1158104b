"""Floor 4: from a score to new samples, to likelihoods, and to samples that fit what was observed."""
