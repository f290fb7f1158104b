"""Generating samples with learned and exact scores, and judging them."""
