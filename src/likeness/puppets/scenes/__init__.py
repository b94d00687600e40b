"""What happens in front of the camera: settings, light, performances, captions, and the posing of a puppet."""
