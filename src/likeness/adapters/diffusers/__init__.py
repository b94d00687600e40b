"""Attaches adapters to diffusers models and keeps diffusers' features working on them."""
