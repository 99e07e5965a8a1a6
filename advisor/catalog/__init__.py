"""Facts about models, GPUs and prices: data with source and date, and the user's own file of such facts."""
