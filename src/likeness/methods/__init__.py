"""One paper, one file: each method composes identity blocks and adapters into something to attach."""
