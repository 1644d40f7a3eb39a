"""Speed against a named peer, in the same run: ``torchcram bench``."""
