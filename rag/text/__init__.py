"""Words, sentences, numbers and dates of a text, and text made harmless; nothing here depends on documents."""
