"""Runs the diffusers pipeline with an identity: sampling, memory plan, best of several seeds."""
