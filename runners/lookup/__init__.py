"""Search by the model itself: it lists, searches and reads the documents by tools before it answers."""
