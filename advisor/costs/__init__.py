"""Estimates of time, memory and money: tokens, training time, hosting, rental and prices of calls."""
