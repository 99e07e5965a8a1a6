"""What public trials measured, shipped with the program, and sentences that cite it."""
