"""Methods. Each combines encoders of `identity` and blocks of `adapters` into a model that attaches to a pipeline."""
