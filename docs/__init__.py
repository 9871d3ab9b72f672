"""The pages for readers, and what makes some of them: see `docs.generate`."""
