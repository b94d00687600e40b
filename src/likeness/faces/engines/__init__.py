"""Face engines: detector and recognizer behind the `FaceEngine` protocol."""
