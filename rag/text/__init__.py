"""Words, sentences, numbers, dates, and text made harmless; knows nothing of documents."""
