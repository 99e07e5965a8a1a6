"""One module for each file format; ``rag.loading.registry`` lists them."""
