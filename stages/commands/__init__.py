"""Commands that are no stages: what they make is for outside, or comes from there."""
