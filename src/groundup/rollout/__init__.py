"""Prompts to scored groups of answers, and these to phases that a policy trains on."""
