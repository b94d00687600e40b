"""The adapted block as it runs while sampling, with what can be computed before the loop."""
