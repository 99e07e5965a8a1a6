"""Machine and GPU detection, calibration, memory model and estimate."""
