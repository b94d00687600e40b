"""What a video is made from: prompt, settings, reference faces, characters."""
