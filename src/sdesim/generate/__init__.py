"""Floor 4: from a score to new samples, to likelihoods, to samples that fit what was observed; and judging them."""
